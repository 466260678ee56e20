//! How the story is told: a live view on a terminal, plain lines everywhere else.
//!
//! Nothing here knows what is told. Lines go to standard output; a line that cannot be written is not worth dying for.

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::telemetry::clock;

/// Columns of a terminal from which on tables are wrapped to fit it.
const WRAPPED_FROM: u16 = 72;

/// Where the story is told.
#[derive(Debug)]
pub struct Terminal {
    began: Duration,
    colours: bool,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    all: MultiProgress,
    phase: ProgressBar,
    figures: ProgressBar,
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something promised was not seen.
    Bad,
    /// Something promised was seen.
    Good,
    /// A heading.
    Head,
    /// Anything else.
    Plain,
    /// Something breaks, on purpose.
    Trouble,
}

impl Terminal {
    /// The terminal of the process, or plain lines if there is none; `steps` is how many phases will be told.
    #[must_use]
    pub fn open(steps: u64) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let live = (is_terminal && !all.is_hidden()).then(|| {
            let phase = all.add(ProgressBar::new(steps));
            let figures = all.add(ProgressBar::no_length());
            // A template that the library does not take leaves its own style, which shows the same.
            if let Ok(style) = ProgressStyle::with_template(" {spinner} {elapsed:>4}  [{bar:24}] {msg}") {
                phase.set_style(style.progress_chars("=> "));
            }
            if let Ok(style) = ProgressStyle::with_template("         {msg}") {
                figures.set_style(style);
            }
            phase.enable_steady_tick(Duration::from_millis(120));
            Live { all, phase, figures }
        });
        Self {
            began: clock::monotonic(),
            colours,
            live,
        }
    }

    /// Since the story began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        clock::monotonic().saturating_sub(self.began)
    }

    /// One line of the story.
    pub fn say(&self, tone: Tone, line: impl fmt::Display) {
        let at = self.elapsed().as_secs_f64();
        let (mark, colour) = match tone {
            Tone::Bad => ("MISSED  ", "31"),
            Tone::Good => ("seen    ", "32"),
            Tone::Head => ("", "1"),
            Tone::Plain => ("        ", "0"),
            Tone::Trouble => ("trouble ", "33"),
        };
        let sign = match tone {
            Tone::Bad => "✗ ",
            Tone::Good => "✓ ",
            Tone::Head => "",
            Tone::Plain => "  ",
            Tone::Trouble => "! ",
        };
        let text = match (&self.live, self.colours) {
            (None, _) => format!("{at:6.1} s  {mark}{line}"),
            (Some(_), false) => format!("{at:6.1} s  {sign}{line}"),
            (Some(_), true) => format!("\u{1b}[2m{at:6.1} s\u{1b}[0m  \u{1b}[{colour}m{sign}{line}\u{1b}[0m"),
        };
        self.print(&text);
    }

    /// Lines as they are, without a time.
    pub fn print(&self, text: &str) {
        let written = match &self.live {
            Some(live) if !live.phase.is_finished() => live.all.println(text),
            _ => writeln!(std::io::stdout(), "{text}"),
        };
        // Whoever closed the pipe wants no more of it.
        let _ = written;
    }

    /// The next phase begins.
    pub fn phase(&self, name: &str) {
        self.say(Tone::Head, name);
        if let Some(live) = &self.live {
            live.phase.inc(1);
            live.phase.set_message(name.to_owned());
        }
    }

    /// What the live view shows below the phase.
    pub fn figures(&self, line: String) {
        if let Some(live) = &self.live {
            live.figures.set_message(line);
        }
    }

    /// The live view ends; what follows are lines.
    pub fn close(&self) {
        if let Some(live) = &self.live {
            live.figures.finish_and_clear();
            live.phase.finish_and_clear();
        }
    }

    /// The word or sign for a check.
    #[must_use]
    pub const fn verdict(&self, good: bool) -> &'static str {
        match (self.live.is_some(), good) {
            (true, true) => "✓",
            (true, false) => "✗",
            (false, true) => "seen",
            (false, false) => "MISSED",
        }
    }

    /// An empty table that suits the output.
    #[must_use]
    pub fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(if self.live.is_some() {
            presets::UTF8_BORDERS_ONLY
        } else {
            presets::ASCII_MARKDOWN
        });
        // On a line that is shorter than this, or of unknown length, wrapped cells are worse than wrapped lines.
        let fits = self.live.is_some() && table.width().is_some_and(|width| width >= WRAPPED_FROM);
        table.set_content_arrangement(if fits {
            ContentArrangement::Dynamic
        } else {
            ContentArrangement::Disabled
        });
        table.set_header(header.to_vec());
        table
    }
}
