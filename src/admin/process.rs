//! The API's view of the process, and statistics of reloads.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::proxy::drill::{self, DrillError};
use crate::proxy::instance_admin::{InstanceUpdate, InstanceUpdateError};
use crate::secret;

/// The future of a call. The error tells the operator why nothing has changed.
pub type Answer<'a, T, E = String> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// The process as controlled by the API.
pub trait Process: Debug + Send + Sync {
    /// The configuration file, if there is one.
    fn source(&self) -> Option<&Path>;

    /// Reloads the configuration. Returns the changes, one line each.
    fn reload(&self) -> Answer<'_, Vec<String>>;

    /// Lets a new process take over. Returns its id.
    fn upgrade(&self) -> Answer<'_, u32>;

    /// Changes the state or weight of an instance. Returns its address.
    fn order(&self, order: InstanceUpdate) -> Answer<'_, SocketAddr, InstanceUpdateError>;

    /// Begins a drill. Returns its id.
    fn drill(&self, order: drill::DrillRequest) -> Answer<'_, u64, DrillError>;

    /// Ends a drill.
    fn end_drill(&self, id: u64) -> Answer<'_, (), DrillError>;
}

/// Statistics of reloads.
#[derive(Debug, Default)]
pub struct Reloads {
    applied: AtomicU64,
    unchanged: AtomicU64,
    failed: AtomicU64,
    last_failed: AtomicBool,
    /// Unix seconds of the last successful reload; of the process start until there is one.
    last_success: AtomicU64,
    hash: Mutex<String>,
}

/// The current statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadStats {
    pub applied: u64,
    pub unchanged: u64,
    pub failed: u64,
    pub last_succeeded: bool,
    /// Unix seconds.
    pub last_success: u64,
    /// Of the configuration in use, without secrets.
    pub hash: String,
}

impl Reloads {
    /// Records that the process starts with `config`.
    pub fn began(&self, config: &Config) {
        self.last_success.store(now(), Relaxed);
        self.in_use(config);
    }

    /// Records that `config` is in use from now on.
    pub fn in_use(&self, config: &Config) {
        *self.hash.lock().unwrap_or_else(PoisonError::into_inner) = secret::digest(&format!("{config:?}"));
    }

    /// Records a reload: `Ok` with whether anything has changed, `Err` when it failed.
    pub fn record(&self, result: Result<bool, ()>) {
        let counter = match result {
            Ok(true) => &self.applied,
            Ok(false) => &self.unchanged,
            Err(()) => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
        self.last_failed.store(result.is_err(), Relaxed);
        if result.is_ok() {
            self.last_success.store(now(), Relaxed);
        }
    }

    pub fn stats(&self) -> ReloadStats {
        ReloadStats {
            applied: self.applied.load(Relaxed),
            unchanged: self.unchanged.load(Relaxed),
            failed: self.failed.load(Relaxed),
            last_succeeded: !self.last_failed.load(Relaxed),
            last_success: self.last_success.load(Relaxed),
            hash: self.hash.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
