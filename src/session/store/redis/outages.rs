//! Logs unreachable servers. Each outage is logged once per cause, regardless of the number of connections
//! that fail.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::RedisError;
use tokio::time::Instant;

use crate::config::Host;

use super::super::StoreError;
use super::reply;

/// Maximum number of outages that are remembered. Cluster nodes come and go, so the set needs a bound.
const LIMIT: usize = 1024;

/// The current outages of servers of one kind, shared by all connections of the process.
pub(super) struct Outages {
    /// The kind of server, for the log.
    what: &'static str,
    current: Mutex<HashMap<Host, Outage>>,
}

struct Outage {
    cause: String,
    since: Instant,
}

impl Outages {
    pub(super) fn of(what: &'static str) -> Self {
        Outages { what, current: Mutex::default() }
    }

    /// Records that a connection could not be opened. Logs the first failure and every change of its cause.
    pub(super) fn failed(&self, host: &Host, error: &RedisError) {
        let cause = cause(error);
        let mut current = self.current();
        if current.len() >= LIMIT {
            current.clear();
        }
        let outage = current.entry(host.clone());
        let outage = outage.or_insert_with(|| Outage { cause: String::new(), since: Instant::now() });
        if outage.cause != cause {
            outage.cause = cause;
            tracing::warn!(address = %host, cause = outage.cause, "{} cannot be reached", self.what);
        }
    }

    /// Records that a connection was opened. Logs the end of an outage.
    pub(super) fn reached(&self, host: &Host) {
        let ended = self.current().remove(host);
        if let Some(outage) = ended {
            let after = outage.since.elapsed().as_secs_f64();
            tracing::info!(address = %host, after_seconds = after, "{} is reached again", self.what);
        }
    }

    /// Whether any server is currently unreachable, judged by the connection attempts so far.
    pub(super) fn are_any(&self) -> bool {
        !self.current().is_empty()
    }

    fn current(&self) -> MutexGuard<'_, HashMap<Host, Outage>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cause of a failure and a hint for the operator. Of an error reply only the error code is included,
/// because its text may contain keys.
fn cause(error: &RedisError) -> String {
    let text = || error.to_string();
    if error.is_connection_refusal() {
        return "connection refused: nothing listens there, or it is not let through".to_owned();
    }
    match (reply::kind_of(error.clone()), error.code()) {
        (StoreError::Timeout, _) => "no answer within session.store.connect_timeout".to_owned(),
        (StoreError::Tls, _) => format!("TLS: {}; are session.store.ca and the scheme of the URL right?", text()),
        (StoreError::Disconnected, _) if text().contains("lookup address") => {
            "unknown host: the name has no address".to_owned()
        }
        (StoreError::Disconnected, _) => text(),
        (StoreError::Auth, _) => {
            "the user or the password is not accepted: are they right in session.store.url, and for sentinels in \
             session.store.sentinel_user and sentinel_password?"
                .to_owned()
        }
        (StoreError::Protocol, _) => "what answers does not speak Redis' protocol: does it expect TLS?".to_owned(),
        (kind, Some(code)) => format!("{kind} ({code})"),
        (kind, None) => kind.to_string(),
    }
}
