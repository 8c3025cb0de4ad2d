//! `[[route]]`: which upstream serves a host and a path.

use std::collections::HashMap;

use super::canary::{Around, canary};
use super::http_text::{domain, host};
use super::route_header::route_headers;
use super::session::{cors_preflights, on_absent};
use super::store::on_outage;
use crate::config::fault::{Fault, Spot};
use crate::config::file::Node;
use crate::config::model::{HostPattern, OnAbsent, Route};
use crate::config::nearest::nearest;
use crate::config::section::Section;
use crate::config::upstream::Upstream;
use crate::config::value::{boolean, text};

/// All valid routes. Faults of the others are reported.
pub(super) fn routes(s: &mut Section<'_>, around: Around<'_>) -> Vec<Route> {
    let why = "without one every request would be answered with 404";
    let written = s.tables("route", why, |s| route(s, around));
    let count = written.len();
    let routes: Vec<_> = written.into_iter().flatten().collect();
    let mut seen: HashMap<(&HostPattern, &str), &str> = HashMap::new();
    for Written { spot, route, .. } in &routes {
        match seen.get(&(&route.host, route.path.as_str())) {
            Some(other) => s.fault(spot.clone(), taken(&route.path, other)),
            None => {
                seen.insert((&route.host, &route.path), &spot.key);
            }
        }
    }
    // Skipped when a route is invalid, because that route might be the one that serves the redirect's target.
    for written in routes.iter().filter(|_| routes.len() == count) {
        if let Some(path) = endless_redirect(&written.route, &routes) {
            s.fault(written.on_absent.clone(), endless(path));
        }
    }
    routes.into_iter().map(|written| written.route).collect()
}

/// A route with the positions of its path and of its `on_absent`.
struct Written {
    spot: Spot,
    on_absent: Spot,
    route: Route,
}

fn route(s: &mut Section<'_>, around: Around<'_>) -> Option<Written> {
    let Around { upstreams, session: default, identity } = around;
    let host = s.value("host", host_pattern, HostPattern::Any);
    let path = s.value("path", path, "/".to_owned());
    let session = s.value("session", boolean, true);
    let single = s.value("single", boolean, false);
    let headers = route_headers(s, identity);
    let own_on_absent = s.optional("on_absent", on_absent);
    let own_on_outage = s.optional("on_outage", on_outage);
    if own_on_absent.is_some() && !session {
        s.fault(s.spot("on_absent"), idle("on_absent", "nothing can be absent"));
    }
    if own_on_outage.is_some() && !session {
        s.fault(s.spot("on_outage"), idle("on_outage", "no outage of the store is felt here"));
    }
    let own_preflights = s.optional("cors_preflights", cors_preflights);
    if own_preflights.is_some() && !session {
        s.fault(s.spot("cors_preflights"), idle("cors_preflights", "no preflight is ever denied"));
    }
    let cors_preflights = own_preflights.unwrap_or(default.cors_preflights);
    let on_absent = own_on_absent.unwrap_or_else(|| default.on_absent.clone());
    let on_outage = own_on_outage.unwrap_or(default.store.on_outage);
    let why = "it tells where the requests go";
    let upstream = s.required("upstream", why, "\"app\"", |node| upstream(text(node)?, upstreams)).flatten();
    let canary = s.optional_table("canary", |s| canary(s, around, upstream)).flatten();
    let upstream = upstream?;
    let route = Route {
        host,
        path,
        upstream,
        on_absent,
        cors_preflights,
        on_outage,
        session,
        single,
        headers,
        canary,
    };
    let written = Written { spot: s.spot("path"), on_absent: s.spot("on_absent"), route };
    s.are_sound(&["host", "path", "session", "on_absent", "cors_preflights", "on_outage"]).then_some(written)
}

/// The index of an upstream. `None` if it may be one whose invalid name has been reported.
pub(super) fn upstream(name: &str, upstreams: &[Upstream]) -> Result<Option<usize>, Fault> {
    let names = || upstreams.iter().map(|upstream| upstream.name.as_str());
    let index = names().position(|known| known == name);
    if index.is_some() || upstreams.is_empty() || names().any(str::is_empty) {
        return Ok(index);
    }
    let help = match nearest(name, names()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("upstreams in this file: {}", names().collect::<Vec<_>>().join(", ")),
    };
    Err(Fault::new(format!("there is no upstream {name:?}"), "requests of this route would go nowhere", help))
}

fn idle(key: &str, consequence: &str) -> Fault {
    Fault::new(
        format!("this route looks up no session, so {consequence}"),
        "the key would silently have no effect, and the route would be open to everyone",
        format!("leave out `{key}`, or `session = false`"),
    )
}

fn host_pattern(node: &Node) -> Result<HostPattern, Fault> {
    let text = text(node)?;
    let pattern = match text.strip_prefix("*.") {
        Some(suffix) => domain(suffix).map(HostPattern::Suffix),
        None => host(text).map(HostPattern::Exact),
    };
    pattern.ok_or_else(|| {
        Fault::new(
            format!("{text:?} is not a host"),
            "no request would ever match it",
            "write a name, \"*.\" and a name, or an address, without scheme and port; for any host leave `host` out",
        )
    })
}

/// A path prefix of whole segments, without trailing `/`.
fn path(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    let (what, help) = match text {
        _ if !text.starts_with('/') => ("does not begin with `/`", "begin it with `/`"),
        _ if text.contains(['?', '#']) => ("holds a query or a fragment", "write the path alone"),
        _ if text.contains('*') => {
            ("holds a `*`", "leave it out: a path takes everything below it, /api takes /api/x")
        }
        _ if text.contains("//") => ("holds an empty segment", "write one `/` between segments"),
        _ if has_dot_segment(text) => ("holds a `.` or `..` segment", "write the path it leads to"),
        _ if !text.chars().all(|c| c.is_ascii_graphic() && c != '\\') => {
            ("holds characters that a request's path cannot hold", "percent-encode them")
        }
        "/" => return Ok(text.to_owned()),
        _ => return Ok(text.trim_end_matches('/').to_owned()),
    };
    Err(Fault::new(format!("the path {text:?} {what}"), "no request would ever match it", help))
}

fn has_dot_segment(path: &str) -> bool {
    let is_dot =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    path.split('/').any(is_dot)
}

fn taken(path: &str, key: &str) -> Fault {
    let what = format!("{path:?} of the same host is taken by `{key}` already");
    Fault::new(what, "this route would never be used", "leave one of them out, or change its host or path")
}

/// The redirect target of `route` on this proxy, if a request without a session is redirected there again: an
/// endless redirect.
fn endless_redirect<'a>(route: &'a Route, routes: &[Written]) -> Option<&'a str> {
    let OnAbsent::Redirect(location) = &route.on_absent else { return None };
    let location = location.to_str().ok()?;
    let path = location.split(['?', '#']).next().filter(|path| path.starts_with('/'))?;
    let same_host = routes.iter().map(|written| &written.route).filter(|other| other.host == route.host);
    let there = same_host.filter(|other| takes(&other.path, path)).max_by_key(|other| other.path.len())?;
    let comes_back = route.session && there.session && there.on_absent == route.on_absent;
    comes_back.then_some(path)
}

/// Whether the route path `prefix` matches `path`.
fn takes(prefix: &str, path: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn endless(path: &str) -> Fault {
    Fault::new(
        format!("the redirect to {path:?} ends at a route that redirects there again"),
        "nobody could ever sign in: browsers give up after some twenty redirects",
        format!("add a route for {path:?} with on_absent = \"anonymous\""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::Value;

    fn node(text: &str) -> Node {
        Node { span: 0..0, value: Value::Text(text.to_owned()) }
    }

    #[test]
    fn paths_lose_their_trailing_slash() {
        for (written, held) in [("/", "/"), ("/e/", "/e"), ("/api/v1", "/api/v1"), ("/a.b/..c", "/a.b/..c")] {
            assert_eq!(path(&node(written)).unwrap(), held);
        }
    }

    #[test]
    fn paths_that_no_request_matches_are_refused() {
        for bad in [
            "",
            "api",
            "/a?b",
            "/a#b",
            "/api/*",
            "//",
            "/a//b",
            "/a/../b",
            "/.",
            "/%2E%2e/a",
            "/a b",
            "/ä",
            "/a\\b",
        ] {
            assert_eq!(path(&node(bad)).unwrap_err().why, "no request would ever match it", "{bad}");
        }
    }

    #[test]
    fn hosts_are_exact_or_a_suffix() {
        assert_eq!(host_pattern(&node("A.example")).unwrap(), HostPattern::Exact("a.example".into()));
        assert_eq!(host_pattern(&node("*.A.example")).unwrap(), HostPattern::Suffix("a.example".into()));
        assert_eq!(host_pattern(&node("::1")).unwrap(), HostPattern::Exact("[::1]".into()));
        for bad in ["*", "*.", "a.*", "*a.example", "https://a", "a:80", "*.[::1]", "*.*.a"] {
            assert!(host_pattern(&node(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_takes_whole_segments() {
        let cases = [
            ("/", "/", true),
            ("/", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a", "/", false),
        ];
        for (prefix, path, expected) in cases {
            assert_eq!(takes(prefix, path), expected, "{prefix} {path}");
        }
    }
}
