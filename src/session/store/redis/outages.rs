//! Servers that cannot be reached: each is told of once, with the cause, however many connections to it are tried.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::RedisError;
use tokio::time::Instant;

use crate::config::Host;

use super::super::StoreError;
use super::reply;

/// Servers that are remembered; a cluster may have had many.
const LIMIT: usize = 1024;

/// The outages of servers of one kind, for all connections of a process.
pub(super) struct Outages {
    /// What the servers are, for the log.
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

    /// A connection could not be opened.
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

    /// A connection was opened.
    pub(super) fn reached(&self, host: &Host) {
        let ended = self.current().remove(host);
        if let Some(outage) = ended {
            let after = outage.since.elapsed().as_secs_f64();
            tracing::info!(address = %host, after_seconds = after, "{} is reached again", self.what);
        }
    }

    /// Whether any server cannot be reached, as far as was tried.
    pub(super) fn are_any(&self) -> bool {
        !self.current().is_empty()
    }

    fn current(&self) -> MutexGuard<'_, HashMap<Host, Outage>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stood in the way, and what to look at. Of what a server says only its word for the error is told.
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
