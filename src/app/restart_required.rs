//! The settings that need a restart: sockets, threads or memory are laid out for them at process start.

use crate::config::{Admin, Config, Store};

/// The keys that need a restart and differ between `started` (the configuration at process start) and
/// `wanted`.
pub(super) fn changed(started: &Config, wanted: &Config) -> Vec<&'static str> {
    let admin = |config: &Config| config.admin.as_ref().map(|Admin { address, .. }| *address);
    let fixed = [
        ("workers", started.workers != wanted.workers),
        ("[[listener]]", started.listeners != wanted.listeners),
        ("admin.address", admin(started) != admin(wanted)),
        ("access_log.output", started.access_log != wanted.access_log),
        ("limits.connections", started.limits.connections != wanted.limits.connections),
        (
            "limits.upstream_connections",
            started.limits.upstream_connections != wanted.limits.upstream_connections,
        ),
        ("limits.buffer_bytes", started.limits.buffer_bytes != wanted.limits.buffer_bytes),
        ("session.idle_timeout", started.session.idle_timeout != wanted.session.idle_timeout),
        ("session.cache", started.session.cache != wanted.session.cache),
        ("session.store", !same_store(&started.session.store, &wanted.session.store)),
    ];
    fixed.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
}

/// `on_outage` is a setting of routes, not of the store connection. It may change at run time.
fn same_store(started: &Store, wanted: &Store) -> bool {
    Store { on_outage: started.on_outage, ..wanted.clone() } == *started
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version = 1\nworkers = 1\n[[listener]]\naddress = \"127.0.0.1:80\"\n[admin]\n[session]\n\
        [session.store]\nurl = \"redis://127.0.0.1\"\n[limits]\n[access_log]\n[session.cache]\n[[upstream]]\nname = \"a\"\n\
        instance = [{ address = \"127.0.0.1:1\" }]\n[[route]]\npath = \"/\"\nupstream = \"a\"\n";

    fn differs(from: &str, to: &str) -> Vec<&'static str> {
        assert!(FILE.contains(from), "{from}");
        let parse = |text: &str| crate::config::parse(text, "test").unwrap();
        changed(&parse(FILE), &parse(&FILE.replacen(from, to, 1)))
    }

    #[test]
    fn each_fixed_key_is_named() {
        for (from, to, key) in [
            ("workers = 1", "workers = 2", "workers"),
            ("127.0.0.1:80", "127.0.0.1:81", "[[listener]]"),
            ("[admin]", "[admin]\naddress = \"127.0.0.1:1\"", "admin.address"),
            ("[admin]", "", "admin.address"),
            ("[access_log]", "[access_log]\noutput = \"off\"", "access_log.output"),
            ("[limits]", "[limits]\nconnections = 5", "limits.connections"),
            ("[limits]", "[limits]\nupstream_connections = 5", "limits.upstream_connections"),
            ("[limits]", "[limits]\nbuffer_bytes = \"2MiB\"", "limits.buffer_bytes"),
            ("[session]", "[session]\nidle_timeout = \"1m\"", "session.idle_timeout"),
            ("[session.cache]", "[session.cache]\nenabled = false", "session.cache"),
            ("redis://127.0.0.1", "redis://user:word@127.0.0.1", "session.store"),
            ("[session.store]", "[session.store]\nresponse_timeout = \"1s\"", "session.store"),
        ] {
            assert_eq!(differs(from, to), [key], "{to}");
        }
    }

    #[test]
    fn anything_else_may_change() {
        for (from, to) in [
            ("[session.store]", "[session.store]\non_outage = \"anonymous\""),
            ("[limits]", "[limits]\nuri_bytes = \"1KiB\""),
            ("[session]", "[session]\nmode = \"sticky\"\nuser = \"/id\""),
            ("[admin]", "[admin]\nready_without_store = false"),
            ("127.0.0.1:1\"", "127.0.0.1:2\""),
        ] {
            assert_eq!(differs(from, to), Vec::<&str>::new(), "{to}");
        }
    }
}
