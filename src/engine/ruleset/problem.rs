//! What is wrong with a text that somebody wrote, where, and what to do about it; and the near names of a mistyped one.
//!
//! Pure. Everything that reads configuration, flags or rules adds to one [`Problems`]; whoever started the reading
//! refuses the text or not. Printing, colours and exit codes are left to the command line and the admin plane.

use std::fmt;
use std::sync::Arc;

/// Where something stands: a file, a line and a column, both from 1, the column counted in characters.
///
/// Line 0 means the whole of the named source: a missing file, an environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file as the operator named it, or another source in words (`environment variable X`).
    pub file: Arc<str>,
    /// From 1; 0 for the whole source.
    pub line: u32,
    /// From 1, in characters; 0 for the whole source.
    pub column: u32,
}

impl Place {
    /// The whole of a source that has no lines.
    #[must_use]
    pub fn whole(source: impl Into<Arc<str>>) -> Self {
        Self {
            file: source.into(),
            line: 0,
            column: 0,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)
        } else {
            Ok(())
        }
    }
}

/// Whether a text may be used although this was found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The text is refused whole.
    Problem,
    /// The text is used, and the operator should look.
    Warning,
}

impl Severity {
    /// `problem` or `warning`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Problem => "problem",
            Severity::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
///
/// Shape when displayed: `FILE:LINE:COLUMN: what. remedy`, a warning's `what` after the word `warning:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The offending value; for a missing member the key of what lacks it; for a collision the later one.
    pub place: Place,
    /// The members and indexes that lead there from the top: `routes[0].shadow.percent`. Empty for the top itself.
    pub path: String,
    /// Lower case, no full stop.
    pub what: String,
    /// What the operator can do; lower case, no full stop; empty where nothing can be said.
    pub remedy: String,
    /// Whether it refuses the text.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        f.write_str(&self.what)?;
        if self.remedy.is_empty() {
            Ok(())
        } else {
            write!(f, ". {}", self.remedy)
        }
    }
}

/// How many problems are kept, and as many warnings; the rest is counted: a million bad ids are not a million lines.
pub const PROBLEMS_KEPT: usize = 1_000;

/// Everything that was found, collected over all readers of one change.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    problems_left_out: usize,
    warnings_left_out: usize,
}

impl Problems {
    /// Adds one; beyond [`PROBLEMS_KEPT`] of its severity it is only counted.
    pub fn add(&mut self, problem: Problem) {
        let (list, left_out) = match problem.severity {
            Severity::Problem => (&mut self.problems, &mut self.problems_left_out),
            Severity::Warning => (&mut self.warnings, &mut self.warnings_left_out),
        };
        if list.len() < PROBLEMS_KEPT {
            list.push(problem);
        } else {
            *left_out += 1;
        }
    }

    /// Adds something that refuses the text.
    pub fn problem(
        &mut self,
        place: Place,
        path: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (path, what, remedy) = (path.into(), what.into(), remedy.into());
        self.add(Problem {
            place,
            path,
            what,
            remedy,
            severity: Severity::Problem,
        });
    }

    /// Adds something that the operator should look at.
    pub fn warning(
        &mut self,
        place: Place,
        path: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let (path, what, remedy) = (path.into(), what.into(), remedy.into());
        self.add(Problem {
            place,
            path,
            what,
            remedy,
            severity: Severity::Warning,
        });
    }

    /// Takes over what another reader found.
    pub fn join(&mut self, other: Problems) {
        for problem in other.problems.into_iter().chain(other.warnings) {
            self.add(problem);
        }
        self.problems_left_out += other.problems_left_out;
        self.warnings_left_out += other.warnings_left_out;
    }

    /// Whether anything refuses the text.
    #[must_use]
    pub fn refuse(&self) -> bool {
        !self.problems.is_empty()
    }

    /// The warnings of a text that may be used.
    ///
    /// # Errors
    /// With at least one problem: all problems, then all warnings. Both are sorted by place, each thing once.
    pub fn verdict(self) -> Result<Vec<Problem>, Vec<Problem>> {
        let refuse = self.refuse();
        let mut all = sorted(self.problems, self.problems_left_out);
        all.extend(sorted(self.warnings, self.warnings_left_out));
        if refuse { Err(all) } else { Ok(all) }
    }
}

fn sorted(mut list: Vec<Problem>, left_out: usize) -> Vec<Problem> {
    list.sort();
    list.dedup();
    if left_out > 0
        && let Some(last) = list.last()
    {
        let (place, severity) = (Place::whole(Arc::clone(&last.place.file)), last.severity);
        let what = format!("{left_out} more like these were found and are not shown");
        let remedy = "correct these first, they are probably one mistake".to_owned();
        list.push(Problem {
            place,
            path: String::new(),
            what,
            remedy,
            severity,
        });
    }
    list
}

/// The most characters of a written text that a message repeats.
const QUOTED_CHARS: usize = 60;

/// A text as a message repeats it: in backticks, on one line, at most 60 characters of it.
#[must_use]
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("`");
    for c in text.chars().take(QUOTED_CHARS) {
        if c.is_control() {
            quoted.extend(c.escape_default());
        } else {
            quoted.push(c);
        }
    }
    if text.chars().nth(QUOTED_CHARS).is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// The known name that somebody most probably meant, if one is close enough to be worth saying.
///
/// Distance is the number of inserted, removed, replaced and swapped neighbouring characters, with letters in either
/// case and `-` and `_` alike; at most a third of the longer name. The first of equally near candidates wins.
#[must_use]
pub fn near<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    nearest(name, candidates, 1).pop()
}

/// Up to `limit` names that somebody may have meant, the nearest first: those of [`near`], then those that contain
/// `name` or are contained in it.
#[must_use]
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>, limit: usize) -> Vec<&'c str> {
    // The comparison is quadratic in the length, and nobody mistypes a name that long.
    const LONGEST: usize = 256;
    let wanted = folded(name);
    if wanted.is_empty() || wanted.len() > LONGEST {
        return Vec::new();
    }
    let mut found: Vec<(usize, &str)> = Vec::new();
    for candidate in candidates {
        let other = folded(candidate);
        let longer = wanted.len().max(other.len());
        if other.is_empty() || longer > LONGEST {
            continue;
        }
        // Lengths that differ by more than the allowance can be no near match: most candidates cost nothing.
        let allowed = longer.div_ceil(3).min(longer - 1);
        let distance = if wanted.len().abs_diff(other.len()) <= allowed {
            distance(&wanted, &other)
        } else {
            usize::MAX
        };
        if distance <= allowed {
            found.push((distance, candidate));
        } else if wanted.len().min(other.len()) >= 3 && (contains(&wanted, &other) || contains(&other, &wanted)) {
            found.push((LONGEST + longer, candidate));
        }
    }
    found.sort_by_key(|(distance, _)| *distance);
    found.into_iter().take(limit).map(|(_, candidate)| candidate).collect()
}

fn folded(name: &str) -> Vec<char> {
    name.chars()
        .map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() })
        .collect()
}

fn contains(whole: &[char], part: &[char]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

/// Optimal string alignment distance: Levenshtein's, with a swap of two neighbours as one step.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: u32, column: u32) -> Place {
        Place {
            file: "a.yaml".into(),
            line,
            column,
        }
    }

    #[test]
    fn problem_prints_place_what_and_remedy() {
        let mut all = Problems::default();
        all.problem(
            at(3, 7),
            "limits.idle",
            "expected a duration, found `soon`",
            "write 10s",
        );
        all.warning(Place::whole("environment variable X_PERCENT"), "", "`1` means 1 %", "");
        let list = all.verdict().unwrap_err();
        assert_eq!(
            list[0].to_string(),
            "a.yaml:3:7: expected a duration, found `soon`. write 10s"
        );
        assert_eq!(
            list[1].to_string(),
            "environment variable X_PERCENT: warning: `1` means 1 %"
        );
    }

    #[test]
    fn warnings_alone_do_not_refuse() {
        let mut all = Problems::default();
        all.warning(at(1, 1), "", "look", "");
        assert!(!all.refuse());
        assert_eq!(all.verdict().unwrap().len(), 1);
    }

    #[test]
    fn problems_come_sorted_by_place_and_once() {
        let mut all = Problems::default();
        for (line, column) in [(10, 2), (9, 30), (10, 1), (9, 30)] {
            all.problem(at(line, column), "", "w", "r");
        }
        let places: Vec<_> = all
            .verdict()
            .unwrap_err()
            .iter()
            .map(|p| (p.place.line, p.place.column))
            .collect();
        assert_eq!(places, [(9, 30), (10, 1), (10, 2)]);
    }

    #[test]
    fn too_many_problems_are_counted_not_printed() {
        let mut all = Problems::default();
        for line in 0..1_500 {
            all.problem(at(line, 1), "", "w", "r");
        }
        all.warning(at(1, 1), "", "still there", "");
        let list = all.verdict().unwrap_err();
        assert_eq!(list.len(), PROBLEMS_KEPT + 2);
        assert!(
            list[PROBLEMS_KEPT].what.starts_with("500 more"),
            "{}",
            list[PROBLEMS_KEPT]
        );
        assert_eq!(list[PROBLEMS_KEPT + 1].what, "still there");
    }

    #[test]
    fn near_finds_typing_mistakes_and_nothing_far_fetched() {
        let known = ["percentage", "enabled", "environments", "allowlist", "denylist"];
        for (typed, meant) in [
            ("percentgae", Some("percentage")),
            ("Enabled", Some("enabled")),
            ("enabeld", Some("enabled")),
            ("environment", Some("environments")),
            ("allow-list", Some("allowlist")),
            ("white_elephant", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(near(typed, known), meant, "{typed}");
        }
        assert_eq!(near(&"é".repeat(100_000), known), None);
    }

    #[test]
    fn nearest_also_finds_parts_of_names() {
        let flags = ["WHATSAPP_GATEWAY_ENABLED", "WHATSAPP_DUAL_RUN", "checkout"];
        assert_eq!(nearest("gateway", flags, 3), ["WHATSAPP_GATEWAY_ENABLED"]);
        assert_eq!(nearest("whatsapp-dual-rum", flags, 3), ["WHATSAPP_DUAL_RUN"]);
    }

    #[test]
    fn quoted_text_stays_on_one_line_and_short() {
        assert_eq!(quote("a\nb"), "`a\\nb`");
        assert_eq!(quote(&"é".repeat(61)).chars().count(), 63);
    }
}
