//! Renewals that wait to be written: one per session, however often it was used.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::cache::Moment;
use super::{Session, SessionId};

/// As many make a batch; fewer wait for the next regular flush.
pub(crate) const BATCH: usize = 256;
/// Most renewals that wait while the store is away; further ones are dropped and counted. A dropped renewal is
/// asked for again with the session's next tenth of the idle timeout.
const LIMIT: usize = 262_144;

/// How often the end looks whether all are written.
const FLUSH_CHECK: Duration = Duration::from_millis(5);

/// A session's use that is not written yet.
#[derive(Debug, Clone)]
pub(crate) struct PendingRenewal {
    pub(crate) session: Arc<Session>,
    /// When it was last used.
    pub(crate) used: Moment,
}

/// The renewals of a process that wait to be written.
#[derive(Debug)]
pub(crate) struct Renewals {
    idle_timeout: Option<Duration>,
    pending: Mutex<HashMap<SessionId, PendingRenewal>>,
    batch_is_full: Notify,
    written: AtomicU64,
    dropped: AtomicU64,
}

impl Renewals {
    pub(crate) fn new(idle_timeout: Option<Duration>) -> Self {
        Renewals {
            idle_timeout,
            pending: Mutex::default(),
            batch_is_full: Notify::new(),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Takes note of a use of `session`; of all its uses the last one counts.
    pub(crate) fn push(&self, session: &Arc<Session>, used: Moment) {
        let mut pending = self.pending();
        if let Some(known) = pending.get_mut(session.id()) {
            known.used = known.used.max(used);
            return;
        }
        if pending.len() >= LIMIT {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        pending.insert(session.id().clone(), PendingRenewal { session: Arc::clone(session), used });
        if pending.len() == BATCH {
            self.batch_is_full.notify_one();
        }
    }

    /// Completes when none wait any more; asks for them to be written now.
    pub(crate) async fn all_written(&self) {
        while self.len() > 0 {
            self.batch_is_full.notify_one();
            tokio::time::sleep(FLUSH_CHECK).await;
        }
    }

    /// Completes when there is a batch to be written.
    pub(crate) async fn batch_is_full(&self) {
        self.batch_is_full.notified().await;
    }

    /// Takes at most `BATCH` of those that wait.
    pub(crate) fn take_batch(&self) -> Vec<PendingRenewal> {
        let mut pending = self.pending();
        let ids: Vec<SessionId> = pending.keys().take(BATCH).cloned().collect();
        ids.iter().filter_map(|id| pending.remove(id)).collect()
    }

    /// Puts back what could not be written, unless a later use has come.
    pub(crate) fn put_back(&self, batch: Vec<PendingRenewal>) {
        for renewal in batch {
            self.push(&renewal.session, renewal.used);
        }
    }

    /// The TTL that `renewal` asks for at `now`; `None` when the session is over by now.
    pub(crate) fn ttl(&self, renewal: &PendingRenewal, now: Moment) -> Option<Duration> {
        let end = renewal.session.end_if_used(renewal.used, self.idle_timeout?);
        Some(end.since(now)).filter(|ttl| !ttl.is_zero())
    }

    pub(crate) fn count_written(&self, count: u64) {
        self.written.fetch_add(count, Relaxed);
    }

    /// Renewals written, and dropped because too many waited.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.written.load(Relaxed), self.dropped.load(Relaxed))
    }

    pub(crate) fn len(&self) -> usize {
        self.pending().len()
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<SessionId, PendingRenewal>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
