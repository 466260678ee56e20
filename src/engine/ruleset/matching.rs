//! Which route takes a request.
//!
//! Pure. Paths are sorted and looked up from the longest possible prefix to the shortest, so that a thousand routes cost
//! little more than one.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::RouteIndex;
use super::route::RouteMatch;

/// The conditions of all routes, arranged for looking up.
#[derive(Clone, Debug, Default)]
pub(super) struct Matching {
    /// Sorted by path; each path once.
    paths: Box<[Path]>,
    /// The different lengths of these paths, the longest first.
    lengths: Box<[usize]>,
}

#[derive(Clone, Debug)]
struct Path {
    /// Without a slash at the end; the root is empty.
    prefix: Box<str>,
    /// The most specific first.
    candidates: Vec<Candidate>,
}

#[derive(Clone, Debug)]
struct Candidate {
    route: RouteIndex,
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, HeaderValue)]>,
}

impl Candidate {
    fn takes(&self, method: &Method, headers: &HeaderMap) -> bool {
        (self.methods.is_empty() || self.methods.contains(method))
            && self
                .headers
                .iter()
                .all(|(name, wanted)| headers.get_all(name).iter().any(|value| value == wanted))
    }

    /// Smaller is more specific; the sort is stable, so the order of the configuration decides between equals.
    fn rank(&self) -> (std::cmp::Reverse<usize>, bool) {
        (std::cmp::Reverse(self.headers.len()), self.methods.is_empty())
    }
}

/// A path as it is looked up: a slash at its end means nothing, so `/` is empty.
pub(super) fn prefix_of(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

impl Matching {
    pub(super) fn new<'m>(routes: impl Iterator<Item = (RouteIndex, &'m RouteMatch)>) -> Self {
        let mut paths: Vec<Path> = Vec::new();
        for (route, matcher) in routes {
            let candidate = Candidate {
                route,
                methods: matcher.methods.clone().into(),
                headers: matcher.headers.clone().into(),
            };
            let prefix = prefix_of(&matcher.path);
            match paths.binary_search_by(|path| (*path.prefix).cmp(prefix)) {
                Ok(at) => paths[at].candidates.push(candidate),
                Err(at) => paths.insert(
                    at,
                    Path {
                        prefix: prefix.into(),
                        candidates: vec![candidate],
                    },
                ),
            }
        }
        for path in &mut paths {
            path.candidates.sort_by_key(Candidate::rank);
        }
        let mut lengths: Vec<usize> = paths.iter().map(|path| path.prefix.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self {
            paths: paths.into(),
            lengths: lengths.into(),
        }
    }

    pub(super) fn find(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<RouteIndex> {
        for &length in &self.lengths {
            // A prefix ends where the path does or before a slash; at any other length no segment ends.
            if !matches!(path.as_bytes().get(length), None | Some(b'/')) {
                continue;
            }
            let Some(prefix) = path.get(..length) else { continue };
            let Ok(at) = self.paths.binary_search_by(|known| (*known.prefix).cmp(prefix)) else {
                continue;
            };
            if let Some(found) = self.paths[at]
                .candidates
                .iter()
                .find(|candidate| candidate.takes(method, headers))
            {
                return Some(found.route);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str, methods: &[Method], headers: &[(&'static str, &'static str)]) -> RouteMatch {
        let headers = headers
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect();
        RouteMatch {
            path: path.into(),
            methods: methods.to_vec(),
            headers,
        }
    }

    fn found(
        routes: &[RouteMatch],
        method: &Method,
        path: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Option<u32> {
        let matching = Matching::new(
            routes
                .iter()
                .enumerate()
                .map(|(at, route)| (RouteIndex(at as u32), route)),
        );
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        matching.find(method, path, &map).map(|route| route.0)
    }

    #[test]
    fn path_is_a_prefix_that_ends_with_a_segment() {
        let routes = [route("/webhook/whatsapp", &[], &[])];
        for (path, expected) in [
            ("/webhook/whatsapp", Some(0)),
            ("/webhook/whatsapp/", Some(0)),
            ("/webhook/whatsapp/v2/x", Some(0)),
            ("/webhook/whatsapp2", None),
            ("/webhook", None),
            ("/Webhook/whatsapp", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(found(&routes, &Method::GET, path, &[]), expected, "{path}");
        }
    }

    #[test]
    fn root_takes_every_path() {
        for path in ["/", "/a", "/a/b"] {
            assert_eq!(
                found(&[route("/", &[], &[])], &Method::GET, path, &[]),
                Some(0),
                "{path}"
            );
        }
    }

    #[test]
    fn slash_at_the_end_means_nothing() {
        assert_eq!(found(&[route("/a/", &[], &[])], &Method::GET, "/a", &[]), Some(0));
    }

    #[test]
    fn longest_path_wins_then_headers_then_methods_then_order() {
        let routes = [
            route("/", &[], &[]),
            route("/a", &[], &[]),
            route("/a", &[], &[]),
            route("/a", &[Method::POST], &[]),
            route("/a", &[], &[("x", "1")]),
            route("/a", &[], &[("x", "1"), ("y", "2")]),
            route("/a/b", &[Method::PUT], &[]),
        ];
        for (method, path, headers, expected) in [
            (Method::GET, "/z", &[][..], 0),
            (Method::GET, "/a", &[], 1),
            (Method::POST, "/a", &[], 3),
            (Method::POST, "/a", &[("x", "1")], 4),
            (Method::POST, "/a", &[("x", "1"), ("y", "2")], 5),
            (Method::PUT, "/a/b/c", &[("x", "1")], 6),
            (Method::GET, "/a/b/c", &[], 1),
        ] {
            assert_eq!(
                found(&routes, &method, path, headers),
                Some(expected),
                "{method} {path} {headers:?}"
            );
        }
    }

    #[test]
    fn header_matches_any_of_its_values_exactly() {
        let routes = [route("/", &[], &[("x", "b")])];
        assert_eq!(found(&routes, &Method::GET, "/", &[("x", "a"), ("x", "b")]), Some(0));
        assert_eq!(found(&routes, &Method::GET, "/", &[("x", "B")]), None);
    }

    #[test]
    fn path_cut_inside_a_character_is_no_match() {
        assert_eq!(found(&[route("/a", &[], &[])], &Method::GET, "/é", &[]), None);
    }
}
