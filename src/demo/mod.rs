//! The whole story in one process: a simulated sender, two simulated bots and a sidecar between them, over real sockets.
//!
//! `sender` and `bots` are the world, `story` tells what happens in it through `operator`, `verdict` and `report` say
//! what came of it. The instance is started as `run` starts one and asked through its admin API alone. Everything is on
//! the loopback interface, on free ports, in a temporary folder that is removed at the end; every wait is bounded.

mod bots;
mod checks;
mod faults;
mod folder;
mod operator;
mod plan;
mod reply;
mod report;
mod sender;
mod shoppers;
mod stage;
mod story;
mod terminal;
mod verdict;
mod webhook;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, App, Options, StartError};
use crate::engine::vocab::Side;
use crate::telemetry::logs;

use bots::Bot;
use folder::{Folder, Watchdog};
use operator::{Awaited, Operator};
use plan::Who;
use sender::Sender;
use stage::{Stage, Tale};
use terminal::{Terminal, Tone};

/// Shoppers beside the tester and the canaries.
const SHOPPERS: usize = 300;
/// How long the whole may take, whatever happens. It takes half a minute.
const LIMIT: Duration = Duration::from_secs(120);
/// How long the end may take.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Requests per second after the story.
const GENTLE: u32 = 2;

/// Tells the story on standard output; with `keep`, goes on serving afterwards until it is interrupted.
///
/// Exit code 0 if everything promised was seen, 1 if not, 130 if it was interrupted before its end.
#[must_use]
pub fn run(keep: bool) -> ExitCode {
    match perform(keep) {
        Ok(code) => code,
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::FAILURE
        }
    }
}

/// Why the story cannot begin.
#[derive(Debug)]
enum Trouble {
    /// The system has not what it takes.
    Io(&'static str, std::io::Error),
    /// The instance does not start.
    Start(StartError),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "the demo cannot start: {what}: {error}"),
            Self::Start(StartError::Problems(problems)) => {
                f.write_str("the demo cannot start:")?;
                problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
            }
            Self::Start(error) => write!(f, "the demo cannot start: {error}"),
        }
    }
}

fn io(what: &'static str) -> impl Fn(std::io::Error) -> Trouble {
    move |error| Trouble::Io(what, error)
}

fn perform(keep: bool) -> Result<ExitCode, Trouble> {
    let terminal = Terminal::open(story::PHASES);
    let folder = Folder::make().map_err(io("no temporary folder"))?;
    let awaited = Awaited::default();
    awaited.set("the start");
    let watchdog = Watchdog::start(LIMIT, awaited.clone(), &folder).map_err(io("no thread"))?;
    let _lines = logs::init_to(folder.log().map_err(io("no log file"))?);

    let legacy = Bot::start(Side::Legacy).map_err(io("no place for the legacy bot"))?;
    let new = Bot::start(Side::New).map_err(io("no place for the new bot"))?;
    let token = token().map_err(io("no random numbers"))?;
    let config = plan::config(folder.path(), legacy.address(), new.address());
    let files = [
        ("understudy.yaml", config),
        ("tokens.yaml", plan::tokens(&token)),
        ("features.yaml", plan::flags(&story::DEV)),
    ];
    for (name, text) in files {
        folder
            .write(name, &text)
            .map_err(io("no files in the temporary folder"))?;
    }
    let options = Options {
        config: folder.path().join("understudy.yaml"),
        env: BTreeMap::new(),
    };
    let app = app::start(options).map_err(Trouble::Start)?;
    let data = *app
        .addresses()
        .first()
        .ok_or_else(|| Trouble::Io("no listener", std::io::ErrorKind::AddrNotAvailable.into()))?;

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io("no runtime"))?;
    let flags = folder.path().join("features.yaml");
    let operator = Operator::new(app.admin(), token.clone(), flags, awaited.clone());
    let told = runtime.block_on(async {
        let sender = Sender::start(data, shoppers::population(SHOPPERS), story::RATE);
        let stage = Stage {
            terminal: &terminal,
            operator: &operator,
            sender: &sender,
            legacy: &legacy,
            new: &new,
            log: folder.path().join("log.jsonl"),
        };
        let mut tale = Tale::default();
        greet(&terminal, data, &app, &folder);
        let code = tokio::select! {
            () = whole(&stage, &mut tale) => {
                terminal.close();
                report::print(&terminal, &tale);
                let kept = tale.checks.kept();
                terminal.print(&sentence(kept, &terminal));
                if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            () = interrupted() => {
                terminal.close();
                terminal.say(Tone::Plain, "interrupted");
                return ExitCode::from(130);
            }
        };
        if keep {
            watchdog.rest();
            for bot in [&legacy, &new] {
                bot.close_book();
            }
            sender.set_rate(GENTLE);
            sender.go_on();
            terminal.print(&invitation(data, &app, &token, &sender));
            interrupted().await;
        }
        code
    });
    watchdog.watch(END_LIMIT);
    awaited.set("the end: the sidecar drains");
    drop(runtime);
    app.stop();
    Ok(told)
}

/// The story, and what has to hold over the whole; beside it, the live view.
async fn whole(stage: &Stage<'_>, tale: &mut Tale) {
    let told = async {
        stage.tell(tale).await;
        stage.settle(tale).await;
    };
    tokio::select! {
        () = told => {}
        () = stage.show() => {}
    }
}

/// Until somebody asks the process to end.
async fn interrupted() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals end the process as they always do.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A token that nobody can guess: other users of this machine can reach the loopback interface.
fn token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes
        .iter()
        .fold("demo-".to_owned(), |token, byte| format!("{token}{byte:02x}")))
}

fn greet(terminal: &Terminal, data: SocketAddr, app: &App, folder: &Folder) {
    let shoppers = SHOPPERS + 4;
    let lines = [
        format!(
            "{shoppers} simulated shoppers (WHATSAPP_PROVIDER=simulated), {} requests per second",
            story::RATE
        ),
        format!(
            "shoppers -> understudy {data} -> legacy bot and new bot; admin API {}",
            app.admin()
        ),
        format!("configuration, flag file, state and log: {}", folder.path().display()),
    ];
    for line in lines {
        terminal.say(Tone::Plain, line);
    }
}

fn sentence(kept: bool, terminal: &Terminal) -> String {
    let seconds = terminal.elapsed().as_secs_f64();
    if kept {
        format!("\nEverything that was promised was seen, in {seconds:.0} s. Three kills, and no shopper noticed.")
    } else {
        format!("\nNot everything that was promised was seen, in {seconds:.0} s: look at the promises above.")
    }
}

fn invitation(data: SocketAddr, app: &App, token: &str, sender: &Sender) -> String {
    let (body, signature) = sender.sample(|number| Who::Percent(25).has(number));
    let (admin, route, path) = (app.admin(), plan::ROUTE, webhook::PATH);
    let post = |action: &str, reason: &str| {
        format!(
            "curl -s -X POST -H \"$AUTH\" -H 'content-type: application/json' -d '{{\"reason\":\"{reason}\"}}' \
             http://{admin}/api/v1/routes/{route}/{action}"
        )
    };
    format!(
        "
It goes on serving, at {GENTLE} requests per second, until Ctrl-C. The third kill is in force. To play with:

AUTH='authorization: Bearer {token}'

# who is served by whom, and why: as a table, and for machines
UNDERSTUDY_TOKEN={token} understudy status --admin http://{admin}
curl -s -H \"$AUTH\" http://{admin}/api/v1/status
# the last exchanges whose answers differed
curl -s -H \"$AUTH\" 'http://{admin}/api/v1/divergences?limit=3'
# lift the kill: 25 % of the shoppers are on new again
{rearm}
# pull it by hand
{kill}
# metrics and readiness
curl -s http://{admin}/metrics
curl -s http://{admin}/readyz
# one message of a shopper among the 25 %, signed; the answer says who served it
curl -si -H 'content-type: application/json' -H '{header}: {signature}' --data-binary '{body}' http://{data}{path}
",
        rearm = post("rearm", "new is back"),
        kill = post("kill", "I want to see it"),
        header = webhook::SIGNATURE,
    )
}
