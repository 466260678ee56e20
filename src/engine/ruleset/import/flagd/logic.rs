//! JSONLogic that says who somebody is, as conditions of a rule; shared evaluators as segments.
//!
//! Pure. In: an expression that is true or false. Out: the condition, with what reads differently; or every part that has no
//! counterpart. The two differ where an attribute is absent: there JSONLogic goes on with null, and a condition here holds only
//! if it is a negative one. Operators for which that matters are written so that it does not, or it is told.

use jiff::Timestamp;

use crate::engine::number;
use crate::engine::ruleset::import::{entry, map, plain, text};
use crate::engine::ruleset::problem::quote;
use crate::engine::ruleset::yaml::{Entry, Mark, Node, Value};
use crate::engine::vocab::FlagKey;

/// How deep evaluators may name each other.
pub(super) const DEPTH: usize = 32;

/// Where, and what is to be said about it.
pub(super) type Told = Vec<(Mark, String)>;

type Found<'t> = Result<(Node<'t>, Told), Told>;

/// The evaluators of a file, and the segments that have been made of them.
pub(super) struct Logic<'n, 't> {
    evaluators: &'n [Entry<'t>],
    used: Vec<bool>,
    segments: Vec<Entry<'t>>,
}

/// The operator of an expression and what it is given.
pub(super) fn call<'n, 't>(node: &'n Node<'t>) -> Option<(&'n str, &'n [Node<'t>])> {
    let Value::Mapping(entries) = &node.value else {
        return None;
    };
    let [of] = entries.as_slice() else { return None };
    let arguments = match &of.value.value {
        Value::Sequence(list) => list.as_slice(),
        _ => std::slice::from_ref(&of.value),
    };
    Some((&of.key, arguments))
}

/// The name that a `var` asks for.
///
/// # Errors
/// Says why it is no attribute of ours.
pub(super) fn variable<'n>(node: &'n Node<'_>) -> Result<&'n str, String> {
    let Some(("var", arguments)) = call(node) else {
        return Err("expected an attribute, `{\"var\": NAME}`".to_owned());
    };
    let name = arguments.first().and_then(Node::text).unwrap_or_default();
    // An empty text is what the comparisons below make of an absent attribute, too.
    let harmless = |default: &Node<'_>| default.is_null() || default.text() == Some("");
    match arguments {
        [_] => {}
        [_, default] if harmless(default) => {}
        _ => return Err("a `var` with a default; set the attribute where it comes from".to_owned()),
    }
    if name.is_empty() {
        return Err("a `var` without a name".to_owned());
    }
    if name.contains('.') && !name.starts_with("$flagd.") {
        let what = format!(
            "{} lies inside another attribute; only top-level ones are asked here",
            quote(name)
        );
        return Err(what);
    }
    Ok(name)
}

impl<'n, 't> Logic<'n, 't> {
    pub(super) fn new(evaluators: Option<&'n Node<'t>>) -> Self {
        let evaluators = match evaluators.map(|node| &node.value) {
            Some(Value::Mapping(entries)) => entries.as_slice(),
            _ => &[],
        };
        Self {
            evaluators,
            used: vec![false; evaluators.len()],
            segments: Vec::new(),
        }
    }

    /// The evaluators that nobody asked for.
    pub(super) fn unused(&self) -> impl Iterator<Item = &'n Entry<'t>> {
        let unused = self.evaluators.iter().zip(&self.used).filter(|(_, used)| !**used);
        unused.map(|(of, _)| of)
    }

    pub(super) fn into_segments(self) -> Vec<Entry<'t>> {
        self.segments
    }

    /// What a `$ref` stands for.
    ///
    /// # Errors
    /// Says that there is no such evaluator.
    pub(super) fn referred(&mut self, node: &Node<'t>) -> Result<&'n Node<'t>, String> {
        let name = match call(node) {
            Some(("$ref", [name])) => name.text().unwrap_or_default(),
            _ => "",
        };
        match self.evaluators.iter().position(|of| of.key == name) {
            Some(at) => {
                if let Some(used) = self.used.get_mut(at) {
                    *used = true;
                }
                self.evaluators.get(at).map(|of| &of.value).ok_or_else(String::new)
            }
            None => Err(format!("there is no evaluator {}", quote(name))),
        }
    }

    /// Whether an expression is true or false, and no choice of a variant.
    pub(super) fn is_condition(&self, node: &Node<'_>) -> bool {
        const OPERATORS: [&str; 16] = [
            "==",
            "===",
            "!=",
            "!==",
            "<",
            "<=",
            ">",
            ">=",
            "in",
            "starts_with",
            "ends_with",
            "sem_ver",
            "and",
            "or",
            "!",
            "!!",
        ];
        match call(node) {
            Some(("$ref", [name])) => {
                let found = self.evaluators.iter().find(|of| Some(&*of.key) == name.text());
                // A ring is told where it is followed.
                found.is_some_and(|of| call(&of.value).is_some_and(|(name, _)| OPERATORS.contains(&name)))
            }
            Some((operator, _)) => OPERATORS.contains(&operator),
            None => false,
        }
    }

    /// The condition that says the same.
    ///
    /// # Errors
    /// Every part of it that has no counterpart.
    pub(super) fn condition(&mut self, node: &Node<'t>, depth: usize) -> Found<'t> {
        let mark = node.mark;
        let Some((operator, arguments)) = call(node) else {
            return lost(mark, format!("expected a condition, found {}", node.found()));
        };
        if depth > DEPTH {
            return lost(mark, "evaluators that name each other in a ring");
        }
        match (operator, arguments) {
            ("$ref", _) => self.segment(node, depth),
            ("and", _) => self.group("all", arguments, mark, depth),
            ("or", _) => self.group("any", arguments, mark, depth),
            ("!", [inner]) => {
                let (inner, told) = self.condition(inner, depth + 1)?;
                Ok((map(mark, vec![entry("not", mark, inner)]), told))
            }
            ("!!", [inner]) if self.is_condition(inner) => self.condition(inner, depth + 1),
            ("!!", _) => lost(
                mark,
                "`!!` asks whether an attribute is there, which no operator here does",
            ),
            ("var", _) => lost(
                mark,
                "an attribute alone is no condition here; compare it, `{\"==\": [{\"var\": NAME}, true]}`",
            ),
            ("in", [what, place]) => membership(what, place, mark),
            ("starts_with" | "ends_with", [attribute, value]) => {
                let of = subject_of(attribute)?;
                compare(of, operator_name(operator), &[value], mark).map(quiet)
            }
            ("==" | "===" | "!=" | "!==", [a, b]) => equality(operator, a, b, mark),
            ("<" | "<=" | ">" | ">=", [a, b]) => ordering(operator, a, b, mark),
            ("<" | "<=", [low, attribute, high]) => {
                let (below, mut told) = ordering(operator, attribute, high, mark)?;
                let (above, more) = ordering(operator, low, attribute, mark)?;
                told.extend(more);
                Ok((both("all", [above, below], mark), told))
            }
            ("sem_ver", [attribute, operator, version]) => version_of(attribute, operator, version, mark),
            _ => lost(
                mark,
                format!(
                    "{} with {} arguments has no counterpart",
                    quote(operator),
                    arguments.len()
                ),
            ),
        }
    }

    /// An evaluator that says who somebody is becomes a segment of its name.
    fn segment(&mut self, node: &Node<'t>, depth: usize) -> Found<'t> {
        let referred = match self.referred(node) {
            Ok(referred) => referred,
            Err(what) => return lost(node.mark, what),
        };
        let Some(of) = self.evaluators.iter().find(|of| std::ptr::eq(&of.value, referred)) else {
            return lost(node.mark, "there is no such evaluator");
        };
        if FlagKey::parse(&of.key).is_err() {
            return self.condition(referred, depth + 1);
        }
        let mut told = Told::new();
        if self.segments.iter().all(|segment| segment.key != of.key) {
            let (condition, more) = self.condition(referred, depth + 1)?;
            told = more;
            // It may have been made meanwhile, by one that names it.
            if self.segments.iter().all(|segment| segment.key != of.key) {
                self.segments.push(entry(of.key.clone(), of.mark, condition));
            }
        }
        let name = text(node.mark, of.key.clone());
        Ok((map(node.mark, vec![entry("segment", node.mark, name)]), told))
    }

    fn group(&mut self, name: &'static str, arguments: &[Node<'t>], mark: Mark, depth: usize) -> Found<'t> {
        let (mut conditions, mut told, mut reasons) = (Vec::new(), Told::new(), Told::new());
        for argument in arguments {
            match self.condition(argument, depth + 1) {
                Ok((condition, more)) => {
                    conditions.push(condition);
                    told.extend(more);
                }
                Err(more) => reasons.extend(more),
            }
        }
        if conditions.is_empty() && reasons.is_empty() {
            reasons.push((mark, format!("an empty `{name}`")));
        }
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let inner = Node {
            mark,
            value: Value::Sequence(conditions),
        };
        Ok((map(mark, vec![entry(name, mark, inner)]), told))
    }
}

fn lost<T>(mark: Mark, what: impl Into<String>) -> Result<T, Told> {
    Err(vec![(mark, what.into())])
}

fn quiet(condition: Node<'_>) -> (Node<'_>, Told) {
    (condition, Told::new())
}

fn operator_name(operator: &str) -> &'static str {
    if operator == "starts_with" {
        "starts_with"
    } else {
        "ends_with"
    }
}

/// What is compared.
#[derive(Clone, Copy)]
enum Compared<'n> {
    Attribute(&'n str),
    /// The instant of the evaluation, in seconds.
    Now,
    Subject,
}

fn subject_of<'n>(node: &'n Node<'_>) -> Result<Compared<'n>, Told> {
    match variable(node) {
        Ok("targetingKey") => Ok(Compared::Subject),
        Ok("$flagd.timestamp") => Ok(Compared::Now),
        Ok(name) if name.starts_with("$flagd.") => lost(node.mark, format!("{} is no attribute here", quote(name))),
        Ok(name) => Ok(Compared::Attribute(name)),
        Err(what) => lost(node.mark, what),
    }
}

/// A literal as a condition's value.
fn literal<'t>(node: &Node<'t>) -> Result<Node<'t>, Told> {
    match &node.value {
        Value::Plain(said) | Value::Quoted(said) if !node.is_null() => Ok(text(node.mark, said.clone())),
        _ => lost(
            node.mark,
            format!("expected a text, a number, true or false, found {}", node.found()),
        ),
    }
}

/// One attribute, or the subject, against values.
fn compare<'t>(of: Compared<'_>, operator: &'static str, values: &[&Node<'t>], mark: Mark) -> Result<Node<'t>, Told> {
    let values: Vec<Node<'t>> = values.iter().map(|value| literal(value)).collect::<Result<_, _>>()?;
    if values.is_empty() {
        return lost(mark, "a comparison with an empty list never holds");
    }
    let values = Node {
        mark,
        value: Value::Sequence(values),
    };
    match (of, operator) {
        (Compared::Attribute(name), _) => Ok(map(
            mark,
            vec![
                entry("attribute", mark, text(mark, name.to_owned())),
                entry("operator", mark, text(mark, operator)),
                entry("values", mark, values),
            ],
        )),
        (Compared::Subject, "equals" | "in") => Ok(map(mark, vec![entry("user_ids", mark, values)])),
        (Compared::Subject, "not_equals") => {
            let users = map(mark, vec![entry("user_ids", mark, values)]);
            Ok(map(mark, vec![entry("not", mark, users)]))
        }
        (Compared::Subject, _) => lost(mark, "of `targetingKey` only whole keys can be compared here"),
        (Compared::Now, _) => lost(mark, "the time can only be compared by <, <=, > and >="),
    }
}

fn membership<'t>(what: &Node<'t>, place: &Node<'t>, mark: Mark) -> Found<'t> {
    match &place.value {
        Value::Sequence(list) => {
            let of = subject_of(what)?;
            let values: Vec<&Node<'t>> = list.iter().collect();
            compare(of, "in", &values, mark).map(quiet)
        }
        Value::Mapping(_) => {
            let of = subject_of(place)?;
            compare(of, "contains", &[what], mark).map(quiet)
        }
        Value::Plain(_) | Value::Quoted(_) => lost(mark, "whether an attribute is a part of a text is not asked here"),
    }
}

/// The attribute and the literal of a comparison, and whether they stood the other way round.
fn sides<'n, 't>(a: &'n Node<'t>, b: &'n Node<'t>) -> Result<(Compared<'n>, &'n Node<'t>, bool), Told> {
    match (call(a), call(b)) {
        (Some(_), None) => Ok((subject_of(a)?, b, false)),
        (None, Some(_)) => Ok((subject_of(b)?, a, true)),
        (Some(_), Some(_)) => lost(a.mark, "two attributes are not compared with each other here"),
        (None, None) => lost(a.mark, "two values that are known already; write the outcome"),
    }
}

fn equality<'t>(operator: &str, a: &Node<'t>, b: &Node<'t>, mark: Mark) -> Found<'t> {
    let (of, value, _) = sides(a, b)?;
    let negative = operator.starts_with('!');
    let condition = compare(of, if negative { "not_equals" } else { "equals" }, &[value], mark)?;
    let mut told = Told::new();
    if operator.len() == 3 && value.text().is_some_and(number::is_number) {
        told.push((
            mark,
            format!(
                "`{operator}` told numbers and texts apart; here {} is both",
                value.found()
            ),
        ));
    }
    Ok((condition, told))
}

fn ordering<'t>(operator: &str, a: &Node<'t>, b: &Node<'t>, mark: Mark) -> Found<'t> {
    let (of, value, turned) = sides(a, b)?;
    let operator = match (operator, turned) {
        ("<", false) | (">", true) => "<",
        ("<=", false) | (">=", true) => "<=",
        (">", false) | ("<", true) => ">",
        _ => ">=",
    };
    if let Compared::Now = of {
        return time(operator, value, mark).map(quiet);
    }
    let said = value.text().unwrap_or_default();
    if !number::is_number(said) {
        return lost(value.mark, format!("expected a number, found {}", value.found()));
    }
    let strict = if operator.starts_with('<') {
        "less_than"
    } else {
        "greater_than"
    };
    let mut condition = compare(of, strict, &[value], mark)?;
    if operator.len() == 2 {
        condition = both("any", [condition, compare(of, "equals", &[value], mark)?], mark);
    }
    let zero = number::compare("0", said);
    let zero_fits = match operator {
        "<" => zero == Some(std::cmp::Ordering::Less),
        "<=" => zero != Some(std::cmp::Ordering::Greater),
        ">" => zero == Some(std::cmp::Ordering::Greater),
        _ => zero != Some(std::cmp::Ordering::Less),
    };
    let mut told = Told::new();
    if let (true, Compared::Attribute(name)) = (zero_fits, of) {
        told.push((
            mark,
            format!(
                "who has no {} was taken for 0 and matched; here they do not",
                quote(name)
            ),
        ));
    }
    Ok((condition, told))
}

fn both<'t>(name: &'static str, conditions: [Node<'t>; 2], mark: Mark) -> Node<'t> {
    let list = Node {
        mark,
        value: Value::Sequence(conditions.into()),
    };
    map(mark, vec![entry(name, mark, list)])
}

/// Seconds since 1970 against the time of the evaluation, which has whole seconds too.
fn time<'t>(operator: &str, value: &Node<'t>, mark: Mark) -> Result<Node<'t>, Told> {
    let seconds = value.text().and_then(|text| text.parse::<i64>().ok());
    let instant = seconds.and_then(|seconds| {
        let seconds = match operator {
            "<=" | ">" => seconds.checked_add(1)?,
            _ => seconds,
        };
        Timestamp::from_second(seconds).ok()
    });
    let Some(instant) = instant else {
        return lost(
            value.mark,
            format!("expected whole seconds since 1970, found {}", value.found()),
        );
    };
    let name = if operator.starts_with('<') { "before" } else { "after" };
    Ok(map(
        mark,
        vec![entry(name, mark, text(value.mark, instant.to_string()))],
    ))
}

fn version_of<'t>(attribute: &Node<'t>, operator: &Node<'t>, version: &Node<'t>, mark: Mark) -> Found<'t> {
    let of = subject_of(attribute)?;
    let Compared::Attribute(_) = of else {
        return lost(attribute.mark, "only attributes have versions here");
    };
    let said = version.text().unwrap_or_default();
    let said = said.strip_prefix('v').unwrap_or(said);
    let Some(numbers) = numbers(said) else {
        return lost(
            version.mark,
            format!("expected a version such as 1.2.3, found {}", version.found()),
        );
    };
    let at = |text: String| plain(version.mark, text);
    let compared = |operator: &'static str, version: &str| {
        let version = at(version.to_owned());
        compare(of, operator, &[&version], mark)
    };
    let (equals, greater, less) = ("semver_equals", "semver_greater_than", "semver_less_than");
    let condition = match operator.text().unwrap_or_default() {
        "=" => compared(equals, said)?,
        // Not `not`: who has no version matches neither.
        "!=" => both("any", [compared(greater, said)?, compared(less, said)?], mark),
        ">" => compared(greater, said)?,
        "<" => compared(less, said)?,
        ">=" => both("any", [compared(greater, said)?, compared(equals, said)?], mark),
        "<=" => both("any", [compared(less, said)?, compared(equals, said)?], mark),
        // The first pre-release of a version is the lowest that has these numbers.
        "^" | "~" => {
            let [major, minor, _] = numbers;
            let (from, until) = if operator.text() == Some("^") {
                (format!("{major}.0.0-0"), format!("{}.0.0-0", major.saturating_add(1)))
            } else {
                (
                    format!("{major}.{minor}.0-0"),
                    format!("{major}.{}.0-0", minor.saturating_add(1)),
                )
            };
            let from = both("any", [compared(greater, &from)?, compared(equals, &from)?], mark);
            both("all", [from, compared(less, &until)?], mark)
        }
        _ => {
            return lost(
                operator.mark,
                format!("{} is no operator of `sem_ver`", operator.found()),
            );
        }
    };
    Ok(quiet(condition))
}

/// The three numbers of a version.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let numbers = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(numbers)
}
