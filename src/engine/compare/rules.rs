//! What a route tells the comparison: what to ignore, which headers count, how grave a difference is.
//!
//! Pure. In: the parsed members of a route's `compare`, or the options of `diff`. Out: [`Rules`], immutable, built once and
//! used for every pair. It leaves decoding the configuration to its caller.

use http::HeaderName;

use super::path::Pattern;
use super::verdict::Severity;

/// How many divergences of one pair are listed unless a caller wants more; all are counted.
pub const LISTED: usize = 100;

/// Which headers are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Headers {
    /// Every header that either side has.
    All,
    /// These, each with all its values in their order.
    Chosen(Vec<HeaderName>),
}

/// How to compare; the default ignores nothing, looks at no header and is exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    ignore: Vec<Pattern>,
    headers: Headers,
    severity: Vec<(Pattern, Severity)>,
    float_tolerance: f64,
    listed: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            ignore: Vec::new(),
            headers: Headers::Chosen(Vec::new()),
            severity: Vec::new(),
            float_tolerance: 0.0,
            listed: LISTED,
        }
    }
}

impl Rules {
    /// The rules as a route's `compare` states them.
    ///
    /// A pattern of `severity` holds for the place it names and everything below, unless another one names a place
    /// further down; of several that name the same place the first one holds.
    #[must_use]
    pub fn new(ignore: Vec<Pattern>, headers: Headers, severity: Vec<(Pattern, Severity)>) -> Self {
        Self {
            ignore,
            headers,
            severity,
            ..Self::default()
        }
    }

    /// Numbers of which at least one is not whole are equal if they differ by less than this share of the larger. 0, the
    /// default, is exact; what is not between 0 and 1 is taken as 0.
    #[must_use]
    pub fn float_tolerance(mut self, relative: f64) -> Self {
        self.float_tolerance = if (0.0..1.0).contains(&relative) { relative } else { 0.0 };
        self
    }

    /// Lists up to this many divergences of a pair, instead of [`LISTED`].
    #[must_use]
    pub fn listing(mut self, divergences: usize) -> Self {
        self.listed = divergences;
        self
    }

    /// The patterns of `ignore`, in the order to which [`super::Suppression::rule`] refers.
    #[must_use]
    pub fn ignored(&self) -> &[Pattern] {
        &self.ignore
    }

    pub(super) fn headers(&self) -> &Headers {
        &self.headers
    }

    pub(super) fn severities(&self) -> &[(Pattern, Severity)] {
        &self.severity
    }

    pub(super) fn tolerance(&self) -> f64 {
        self.float_tolerance
    }

    pub(super) fn listed(&self) -> usize {
        self.listed
    }

    /// The number of the first `ignore` pattern for which `covers` holds.
    pub(super) fn ignored_by(&self, covers: impl Fn(&Pattern) -> bool) -> Option<usize> {
        self.ignore.iter().position(covers)
    }

    /// The severity that the first pattern for which `covers` holds demands.
    pub(super) fn severity_by(&self, covers: impl Fn(&Pattern) -> bool) -> Option<Severity> {
        self.severity
            .iter()
            .find(|(pattern, _)| covers(pattern))
            .map(|(_, severity)| *severity)
    }
}
