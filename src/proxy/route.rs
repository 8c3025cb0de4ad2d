//! Route lookup by host and path.

use std::collections::HashMap;

use crate::config::{HostPattern, Route};
use crate::headers::host::{RoutingPath, TargetError};

/// The compiled routes. The most specific host pattern that has a matching path wins: exact, then longest
/// wildcard suffix, then any host. Within a host the longest path prefix wins.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    /// Longest suffix first.
    suffixes: Vec<(String, Paths)>,
    any: Paths,
}

/// Path prefixes of one host with the index of their route, longest first.
#[derive(Debug, Default)]
struct Paths(Vec<(String, usize)>);

impl Router {
    /// Compiles `routes`. Lookup results are indices into `routes`.
    pub fn new(routes: &[Route]) -> Self {
        let mut router = Router::default();
        for (index, route) in routes.iter().enumerate() {
            router.paths_of(&route.host).0.push((route.path.clone(), index));
        }
        router.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        let all = router.exact.values_mut().chain(router.suffixes.iter_mut().map(|(_, paths)| paths));
        for paths in all.chain([&mut router.any]) {
            paths.0.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        }
        router
    }

    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(host) => self.exact.entry(host.clone()).or_default(),
            HostPattern::Suffix(suffix) => {
                let place =
                    self.suffixes.iter().position(|(other, _)| other == suffix).unwrap_or_else(|| {
                        self.suffixes.push((suffix.clone(), Paths::default()));
                        self.suffixes.len() - 1
                    });
                // `place` was just found or inserted; the fallback only avoids a panic path.
                self.suffixes.get_mut(place).map_or(&mut self.any, |(_, paths)| paths)
            }
        }
    }

    /// Finds the route for `path` on `host` (without port). A path that applications may decode in several
    /// ways must match the same route in every decoding, otherwise it fails with [`TargetError::UnsafePath`].
    pub fn find(&self, host: &str, path: &RoutingPath<'_>) -> Result<Option<usize>, TargetError> {
        let route = self.find_path(host, &path.decoded);
        if path.others.iter().any(|other| self.find_path(host, other) != route) {
            return Err(TargetError::UnsafePath);
        }
        Ok(route)
    }

    fn find_path(&self, host: &str, path: &str) -> Option<usize> {
        if self.exact.is_empty() && self.suffixes.is_empty() {
            return self.any.find(path);
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let exact = self.exact.get(&host).and_then(|paths| paths.find(path));
        exact
            .or_else(|| {
                let matching = self.suffixes.iter().filter(|(suffix, _)| is_below(&host, suffix));
                matching.filter_map(|(_, paths)| paths.find(path)).next()
            })
            .or_else(|| self.any.find(path))
    }
}

impl Paths {
    fn find(&self, path: &str) -> Option<usize> {
        self.0.iter().find(|(prefix, _)| covers(prefix, path)).map(|(_, index)| *index)
    }
}

/// Whether `path` equals `prefix` or lies below it, compared by whole segments.
fn covers(prefix: &str, path: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether `host` has one or more labels in front of `suffix`.
fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CorsPreflights, OnAbsent, OnOutage};
    use crate::headers::host::routing_path;

    fn router(routes: &[(&str, &str)]) -> Router {
        let route = |(host, path): &(&str, &str)| Route {
            host: match (*host, host.strip_prefix("*.")) {
                ("", _) => HostPattern::Any,
                (_, Some(suffix)) => HostPattern::Suffix(suffix.into()),
                (exact, None) => HostPattern::Exact(exact.into()),
            },
            path: (*path).into(),
            upstream: 0,
            on_absent: OnAbsent::Anonymous,
            cors_preflights: CorsPreflights::Pass,
            on_outage: OnOutage::Deny,
            session: true,
            single: false,
            headers: Vec::new(),
            canary: None,
        };
        Router::new(&routes.iter().map(route).collect::<Vec<_>>())
    }

    fn find(router: &Router, host: &str, path: &str) -> Result<Option<usize>, TargetError> {
        let uri = path.parse().unwrap();
        router.find(host, &routing_path(&http::Method::GET, &uri)?)
    }

    #[test]
    fn the_longest_path_of_whole_segments_wins() {
        let router = router(&[("", "/"), ("", "/api"), ("", "/api/v1")]);
        for (path, route) in [
            ("/", 0),
            ("/api-foo", 0),
            ("/api", 1),
            ("/api/", 1),
            ("/api/v", 1),
            ("/api/v1/x", 2),
            ("/api/v10", 1),
        ] {
            assert_eq!(find(&router, "h", path), Ok(Some(route)), "{path}");
        }
    }

    #[test]
    fn the_most_specific_host_that_knows_the_path_wins() {
        let router = router(&[
            ("", "/"),
            ("*.example.com", "/"),
            ("*.a.example.com", "/"),
            ("x.example.com", "/only"),
        ]);
        for (host, path, route) in [
            ("other", "/", 0),
            ("example.com", "/", 0),
            ("X.Example.com", "/only/1", 3),
            ("x.example.com", "/else", 1),
            ("y.a.example.com", "/", 2),
            ("badexample.com", "/", 0),
        ] {
            assert_eq!(find(&router, host, path), Ok(Some(route)), "{host}{path}");
        }
    }

    #[test]
    fn no_route_is_no_route() {
        assert_eq!(find(&router(&[("", "/api")]), "h", "/other"), Ok(None));
    }

    #[test]
    fn a_protected_path_is_found_in_every_encoding_or_the_request_is_refused() {
        let router = router(&[("", "/"), ("", "/admin")]);
        for path in ["/admin", "//admin", "/%61dmin/x", "/admin//x"] {
            assert_eq!(find(&router, "h", path), Ok(Some(1)), "{path}");
        }
        assert_eq!(find(&router, "h", "/admin%2Fx"), Err(TargetError::UnsafePath));
        assert_eq!(find(&router, "h", "/admin;x/y"), Err(TargetError::UnsafePath));
        assert_eq!(find(&router, "h", "/admin/y;x"), Ok(Some(1)));
        assert_eq!(find(&router, "h", "/x;y=1/z"), Ok(Some(0)));
        assert_eq!(find(&router, "h", "/x%2Fy"), Ok(Some(0)));
        assert_eq!(find(&router, "h", "/x/..%2fadmin"), Err(TargetError::UnsafePath));
    }
}
