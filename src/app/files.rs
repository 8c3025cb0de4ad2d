//! File descriptors: their limit, and its division among the kinds of connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, StoreKind};

/// Descriptors reserved per process besides sockets: its own files, and headroom for files opened briefly.
const PROCESS: usize = 64;
/// Descriptors reserved per worker besides sockets.
const WORKER: usize = 8;
/// Maximum number of admin connections.
const OPERATORS: usize = 256;

/// Maximum number of descriptors for each kind of connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) clients: usize,
    pub(super) upstream: usize,
    pub(super) operators: usize,
}

/// The open-file limit is too low for the configured limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// The open-file limit.
    pub open_files: usize,
    /// The open-file limit that the configuration needs.
    pub needed: usize,
    /// Client connections that can be open at a time.
    pub clients: usize,
    /// Connections to instances that can be open at a time.
    pub upstream_connections: usize,
}

/// Raises the soft limit of open files to the hard limit. This is safe because nothing in this program uses
/// `select(2)`, which fails for descriptors of 1024 and above. When the system refuses, the limit stays
/// unchanged.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        if let Err(error) = raised {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
}

/// Which connection limits of `config` the open-file limit does not allow. Uses the hard limit when `raised`,
/// otherwise the current soft limit. Returns `None` when the limit suffices.
pub fn shortage(config: &Config, raised: bool) -> Option<Shortage> {
    let open_files = open_files(raised);
    let shares = shares(config, open_files);
    let limits = config.limits;
    let is_short = shares.clients < limits.connections || shares.upstream < limits.upstream_connections;
    is_short.then(|| Shortage {
        open_files,
        needed: fixed(config) + OPERATORS + limits.connections + limits.upstream_connections,
        clients: shares.clients,
        upstream_connections: shares.upstream,
    })
}

/// The descriptors for each kind of connection under this process's current soft limit.
pub(super) fn own_shares(config: &Config) -> Shares {
    shares(config, open_files(false))
}

fn open_files(raised: bool) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let files = if raised { limit.maximum } else { limit.current };
    files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Descriptors needed regardless of client and upstream connections: per process, per worker with its
/// listeners and store connections, and one per instance for health checks.
fn fixed(config: &Config) -> usize {
    let store = match config.session.store.kind {
        StoreKind::Redis(_) => config.session.store.max_connections + 4,
        StoreKind::Memory => 0,
    };
    let per_worker = WORKER + config.listeners.len() + store;
    let checks: usize = config.upstreams.iter().map(|upstream| upstream.instances.len()).sum();
    PROCESS + checks + per_worker * config.workers.get()
}

/// Divides the descriptors. Both sides of the proxy get their configured limit. When there are too few
/// descriptors each side gets half, and one side gets what the other does not need.
fn shares(config: &Config, open_files: usize) -> Shares {
    let (clients, upstream) = (config.limits.connections, config.limits.upstream_connections);
    let rest = open_files.saturating_sub(fixed(config));
    let operators = OPERATORS.min(rest / 8).max(1);
    let rest = rest.saturating_sub(operators);
    let for_clients = clients.min((rest / 2).max(rest.saturating_sub(upstream))).max(1);
    let for_upstream = upstream.min(rest.saturating_sub(for_clients)).max(1);
    Shares { clients: for_clients, upstream: for_upstream, operators }
}

impl std::fmt::Display for Shortage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shortage { open_files, needed, clients, upstream_connections } = self;
        write!(
            f,
            "{open_files} files can be open, {needed} may be needed: {clients} clients and {upstream_connections} \
             connections to instances are served at a time; raise the limit (`ulimit -Hn`, LimitNOFILE), or lower \
             limits.connections and limits.upstream_connections"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(connections: usize, upstream: usize) -> Config {
        let text = format!(
            "version = 1\nworkers = 2\n[limits]\nconnections = {connections}\nupstream_connections = {upstream}\n\
             [[listener]]\naddress = \"127.0.0.1:80\"\n[[upstream]]\nname = \"a\"\n\
             instance = [{{ address = \"127.0.0.1:1\" }}]\n[[route]]\npath = \"/\"\nupstream = \"a\"\n"
        );
        crate::config::parse(&text, "test").unwrap()
    }

    #[test]
    fn where_there_are_enough_all_get_what_they_may_have() {
        let shares = shares(&config(10_000, 5_000), 1 << 20);
        assert_eq!(shares, Shares { clients: 10_000, upstream: 5_000, operators: 256 });
    }

    #[test]
    fn what_one_side_does_not_need_the_other_gets() {
        let fixed = fixed(&config(1, 1));
        let of = |connections, upstream| shares(&config(connections, upstream), fixed + 880);
        assert_eq!(of(10_000, 10_000), Shares { clients: 385, upstream: 385, operators: 110 });
        assert_eq!(of(10_000, 70), Shares { clients: 700, upstream: 70, operators: 110 });
        assert_eq!(of(70, 10_000), Shares { clients: 70, upstream: 700, operators: 110 });
    }

    proptest! {
        #[test]
        fn nobody_gets_what_is_not_there(connections in 1..20_000_usize, upstream in 1..20_000_usize, files in 0..50_000_usize) {
            let config = config(connections, upstream);
            let Shares { clients, upstream: to_instances, operators } = shares(&config, files);
            prop_assert!(clients >= 1 && to_instances >= 1 && operators >= 1);
            prop_assert!(clients <= connections && to_instances <= upstream && operators <= OPERATORS);
            let rest = files.saturating_sub(fixed(&config));
            prop_assert!(rest < 4 || clients + to_instances + operators <= rest);
        }
    }
}
