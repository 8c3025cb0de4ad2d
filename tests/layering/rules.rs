//! Which module may name what.

use crate::paths::{NamedPath, named_paths};

/// Every top-level module and its layer.
pub(crate) const LAYERS: &[(&str, u8)] = &[
    ("backoff", 0),
    ("body", 0),
    ("clock", 0),
    ("drain", 0),
    ("golden", 0),
    ("headers", 0),
    ("heap", 0),
    ("seal", 0),
    ("secret", 0),
    ("socket", 0),
    ("body_memory", 0),
    ("telemetry", 0),
    ("config", 1),
    ("discovery", 2),
    ("traffic_split", 2),
    ("session", 2),
    ("transport", 2),
    ("upstream", 2),
    ("affinity", 3),
    ("balance", 3),
    ("canary", 3),
    ("cohort", 3),
    ("health", 3),
    ("identity", 3),
    ("proxy", 4),
    ("admin", 5),
    ("server", 5),
    ("app", 6),
    ("cli", 6),
    ("lab", 6),
    ("main", 7),
    ("lib", 7),
];

/// Layers whose modules do not know each other.
const ISOLATED: [u8; 2] = [2, 3];

/// Crates that only some modules name.
const HOMES: &[(&str, &[&str])] = &[
    ("redis", &["session/store/redis"]),
    ("rustls", &["lab/load/target", "lab/load/tls", "server", "transport"]),
    ("toml", &["config/file"]),
    ("clap", &["cli"]),
    ("hickory_proto", &["discovery/dns"]),
];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Every offence of the source `file` (relative to `src/`), each as `file:line: reason`.
pub(crate) fn offences(file: &str, source: &str) -> Vec<String> {
    let place = Place::of(file);
    let Some(own_layer) = layer(place.module()) else {
        return vec![format!("src/{file}:1: module `{}` has no layer", place.module())];
    };
    let paths = named_paths(source);
    let edges = paths.iter().filter_map(|path| Some((path, edge(&place, own_layer, path)?)));
    let strays = paths.iter().filter_map(|path| Some((path, stray(&place, path, &paths)?)));
    let mut found: Vec<_> = edges.chain(strays).map(|(path, reason)| (path.line, reason)).collect();
    found.sort();
    found.into_iter().map(|(line, reason)| format!("src/{file}:{line}: {reason}")).collect()
}

/// Where a file stands: `session/store/mod.rs` is `["session", "store"]`.
struct Place {
    module: Vec<String>,
}

impl Place {
    fn of(file: &str) -> Self {
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        Self { module: stem.split('/').map(str::to_owned).collect() }
    }

    fn module(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }

    fn is_within(&self, home: &str) -> bool {
        self.module.join("/") == home || self.module.join("/").starts_with(&format!("{home}/"))
    }
}

/// What is wrong with `path` as an edge between modules, if anything.
fn edge(place: &Place, own_layer: u8, path: &NamedPath) -> Option<String> {
    let target = top_level_target(place, path)?;
    if target == place.module() || own_layer == 7 {
        return None;
    }
    let Some(target_layer) = layer(target) else {
        return Some(format!("`crate::{target}` has no layer"));
    };
    let (from, to) = (place.module(), target);
    if target_layer > own_layer {
        Some(format!("`{from}` (layer {own_layer}) names `{to}` (layer {target_layer}) above it"))
    } else if target_layer == own_layer && ISOLATED.contains(&own_layer) {
        Some(format!("`{from}` names its sibling `{to}` (layer {own_layer})"))
    } else {
        None
    }
}

/// The top-level module that `path` reaches through `crate` or a chain of `super`.
fn top_level_target<'a>(place: &Place, path: &'a NamedPath) -> Option<&'a str> {
    let first = path.segments.first()?;
    if first == "crate" {
        return path.segments.get(1).map(String::as_str);
    }
    let climbed = path.segments.iter().take_while(|segment| *segment == "super").count();
    // In an inline module a chain of this length ends lower; its next name is then no top-level module.
    if climbed < place.module.len() {
        return None;
    }
    path.segments.get(climbed).map(String::as_str).filter(|name| layer(name).is_some())
}

/// What is wrong with `path` as a use of a crate that has a home, if anything.
fn stray(place: &Place, path: &NamedPath, all: &[NamedPath]) -> Option<String> {
    let global = path.segments.first().is_some_and(String::is_empty);
    let name = path.segments.get(usize::from(global))?;
    let (krate, homes) = HOMES.iter().find(|(krate, _)| krate == name)?;
    if homes.iter().any(|home| place.is_within(home)) || (!global && is_own_name(krate, all)) {
        return None;
    }
    Some(format!("crate `{krate}` is only for `{}`", homes.join("`, `")))
}

/// Whether `name` is a module that this file declares or imports, as in `mod redis; redis::open()`.
fn is_own_name(name: &str, all: &[NamedPath]) -> bool {
    all.iter().filter(|path| path.import).any(|path| match path.segments.as_slice() {
        [first, .., last] => last == name && first != name,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_offences(file: &str, source: &str, expected: &[&str]) {
        assert_eq!(offences(file, source), expected);
    }

    #[test]
    fn going_down_is_allowed() {
        assert_offences("proxy/mod.rs", "use crate::{config::Config, session::Session};", &[]);
        assert_offences("server/tls.rs", "use crate::proxy::Service; use rustls::ServerConfig;", &[]);
    }

    #[test]
    fn going_up_is_an_offence_at_its_line() {
        assert_offences(
            "session/cache.rs",
            "use std::time::Duration;\n\nfn f() { crate::proxy::error::respond() }",
            &["src/session/cache.rs:3: `session` (layer 2) names `proxy` (layer 4) above it"],
        );
    }

    #[test]
    fn isolated_siblings_do_not_see_each_other() {
        assert_offences(
            "session/mod.rs",
            "use crate::{\n    upstream::Instance,\n};",
            &["src/session/mod.rs:2: `session` names its sibling `upstream` (layer 2)"],
        );
        assert_offences(
            "identity/mod.rs",
            "use crate::health::Probe;",
            &["src/identity/mod.rs:1: `identity` names its sibling `health` (layer 3)"],
        );
    }

    #[test]
    fn other_siblings_may_see_each_other() {
        assert_offences("cli/run.rs", "use crate::app::App;", &[]);
        assert_offences("body.rs", "use crate::drain::Drain;", &[]);
    }

    #[test]
    fn a_module_may_name_itself() {
        assert_offences("session/store/mod.rs", "use crate::session::id::SessionId;", &[]);
    }

    #[test]
    fn a_chain_of_super_is_followed_to_the_root() {
        assert_offences(
            "session/cache.rs",
            "use super::super::proxy::Service;",
            &["src/session/cache.rs:1: `session` (layer 2) names `proxy` (layer 4) above it"],
        );
        assert_offences("session/cache.rs", "use super::proxy::Service;", &[]);
        assert_offences("session/cache.rs", "mod tests { use super::*; use super::super::id::Id; }", &[]);
    }

    #[test]
    fn an_unknown_module_is_an_offence() {
        assert_offences("novel/mod.rs", "", &["src/novel/mod.rs:1: module `novel` has no layer"]);
        assert_offences(
            "proxy/mod.rs",
            "crate::novel::f();",
            &["src/proxy/mod.rs:1: `crate::novel` has no layer"],
        );
    }

    #[test]
    fn a_crate_outside_its_home_is_an_offence() {
        assert_offences(
            "session/resolver.rs",
            "use redis::{Client,\n cmd};",
            &[
                "src/session/resolver.rs:1: crate `redis` is only for `session/store/redis`",
                "src/session/resolver.rs:2: crate `redis` is only for `session/store/redis`",
            ],
        );
        assert_offences(
            "config/mod.rs",
            "::toml::from_str(x)",
            &["src/config/mod.rs:1: crate `toml` is only for `config/file`"],
        );
        assert_offences(
            "lab/stub.rs",
            "#[derive(clap::Args)] struct S;",
            &["src/lab/stub.rs:1: crate `clap` is only for `cli`"],
        );
    }

    #[test]
    fn a_crate_at_home_is_allowed() {
        assert_offences("session/store/redis.rs", "use redis::Client;", &[]);
        assert_offences("session/store/redis/connection.rs", "redis::cmd(\"GET\");", &[]);
        assert_offences("config/file.rs", "use toml::de;", &[]);
    }

    #[test]
    fn a_module_named_like_a_crate_is_not_the_crate() {
        assert_offences("session/mod.rs", "use self::store::redis;\nfn f() { redis::open() }", &[]);
        assert_offences("session/mod.rs", "use crate::session::store::{redis::RedisStore};", &[]);
        assert_offences("session/store/mod.rs", "mod redis;\nenum Store { Redis(redis::Store) }", &[]);
        assert_offences("session/store/mod.rs", "mod redis;\npub use redis::{Store};", &[]);
        assert_offences(
            "session/mod.rs",
            "use self::store::redis;\nfn f() { ::redis::cmd() }",
            &["src/session/mod.rs:2: crate `redis` is only for `session/store/redis`"],
        );
    }

    #[test]
    fn the_roots_may_name_everything() {
        assert_offences("main.rs", "crate::cli::run(); vestibule::cli::run();", &[]);
        assert_offences("lib.rs", "pub use crate::app::App;", &[]);
    }
}
