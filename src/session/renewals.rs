//! Queue of TTL renewals that wait to be written to the store, with at most one per session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::cache::Timestamp;
use super::{Session, SessionId};

/// Renewals per batch. A full batch is written at once, fewer wait for the next regular flush.
pub(crate) const BATCH: usize = 256;
/// Maximum length of the queue, which fills while the store is unavailable. Further renewals are dropped and
/// counted. The session asks for a dropped one again after the next tenth of its idle timeout.
const LIMIT: usize = 262_144;

/// Polling interval of [`Renewals::all_written`].
const FLUSH_CHECK: Duration = Duration::from_millis(5);

/// A use of a session for which the TTL is not renewed yet.
#[derive(Debug, Clone)]
pub(crate) struct PendingRenewal {
    pub(crate) session: Arc<Session>,
    /// Time of its last use.
    pub(crate) used: Timestamp,
}

/// The renewals of a process that wait to be written.
#[derive(Debug)]
pub(crate) struct Renewals {
    idle_timeout: Option<Duration>,
    pending: Mutex<HashMap<SessionId, PendingRenewal>>,
    batch_is_full: Notify,
    /// A writer has taken batches and may put some of them back.
    writing: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
}

impl Renewals {
    pub(crate) fn new(idle_timeout: Option<Duration>) -> Self {
        Renewals {
            idle_timeout,
            pending: Mutex::default(),
            batch_is_full: Notify::new(),
            writing: AtomicBool::new(false),
            written: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Queues the renewal for a use of `session`. If one is queued already, the later use is kept.
    pub(crate) fn push(&self, session: &Arc<Session>, used: Timestamp) {
        if self.insert(session, used) == Some(BATCH) {
            self.batch_is_full.notify_one();
        }
    }

    /// Returns the new length of the queue, or `None` if no entry was added.
    fn insert(&self, session: &Arc<Session>, used: Timestamp) -> Option<usize> {
        let mut pending = self.pending();
        if let Some(known) = pending.get_mut(session.id()) {
            if used >= known.used {
                *known = PendingRenewal { session: Arc::clone(session), used };
            }
            return None;
        }
        if pending.len() >= LIMIT {
            self.dropped.fetch_add(1, Relaxed);
            return None;
        }
        pending.insert(session.id().clone(), PendingRenewal { session: Arc::clone(session), used });
        Some(pending.len())
    }

    /// Completes when the queue is empty and no batch is being written. Requests an immediate flush.
    pub(crate) async fn all_written(&self) {
        while self.len() > 0 || self.writing.load(Relaxed) {
            self.batch_is_full.notify_one();
            tokio::time::sleep(FLUSH_CHECK).await;
        }
    }

    /// Completes when a batch is full or an immediate flush is requested.
    pub(crate) async fn batch_is_full(&self) {
        self.batch_is_full.notified().await;
    }

    /// Sets whether a writer is taking and writing batches.
    pub(crate) fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Relaxed);
    }

    /// Takes up to [`BATCH`] renewals from the queue.
    pub(crate) fn take_batch(&self) -> Vec<PendingRenewal> {
        let mut pending = self.pending();
        let ids: Vec<SessionId> = pending.keys().take(BATCH).cloned().collect();
        ids.iter().filter_map(|id| pending.remove(id)).collect()
    }

    /// Puts renewals back that could not be written, except where a later use is queued. Does not trigger a
    /// flush, so that they wait for the next regular one.
    pub(crate) fn put_back(&self, batch: Vec<PendingRenewal>) {
        for renewal in batch {
            self.insert(&renewal.session, renewal.used);
        }
    }

    /// Returns the TTL to set for `renewal` at `now`: the idle timeout counted from the use, but not past the
    /// session's own expiry. `None` if the session has ended by then.
    pub(crate) fn ttl(&self, renewal: &PendingRenewal, now: Timestamp) -> Option<Duration> {
        let end = renewal.session.end_if_used(renewal.used, self.idle_timeout?);
        Some(end.since(now)).filter(|ttl| !ttl.is_zero())
    }

    pub(crate) fn count_written(&self, count: u64) {
        self.written.fetch_add(count, Relaxed);
    }

    /// Returns the number of renewals written, and of those dropped because the queue was full.
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const IDLE: Duration = Duration::from_secs(1000);

    fn session(id: &str, ends_at: Timestamp) -> Arc<Session> {
        Arc::new(Session {
            id: SessionId::new(id),
            user: None,
            description: Ok([].into()),
            described_by: 0,
            ends_at,
            kept_until: AtomicU64::new(Timestamp::NEVER.as_micros()),
            renew_at: AtomicU64::new(Timestamp::NEVER.as_micros()),
            check_at: AtomicU64::new(Timestamp::NEVER.as_micros()),
        })
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::START.after(Duration::from_secs(seconds))
    }

    #[test]
    fn of_many_uses_the_last_one_is_written_with_what_was_known_then() {
        let renewals = Renewals::new(Some(IDLE));
        renewals.push(&session("s", Timestamp::NEVER), at(1));
        renewals.push(&session("s", at(500)), at(3));
        renewals.push(&session("s", Timestamp::NEVER), at(2));
        let [ref renewal] = renewals.take_batch()[..] else { panic!("not one") };
        assert_eq!(renewal.used, at(3));
        assert_eq!(renewals.ttl(renewal, at(4)), Some(Duration::from_secs(496)));
        assert_eq!(renewals.ttl(renewal, at(500)), None);
    }

    #[test]
    fn the_time_until_a_renewal_is_written_is_not_given() {
        let renewals = Renewals::new(Some(IDLE));
        renewals.push(&session("s", Timestamp::NEVER), at(1));
        let [ref renewal] = renewals.take_batch()[..] else { panic!("not one") };
        assert_eq!(renewals.ttl(renewal, at(301)), Some(Duration::from_secs(700)));
        assert_eq!(renewals.ttl(renewal, at(1001)), None);
    }

    #[test]
    fn what_is_put_back_gives_way_to_a_later_use() {
        let renewals = Renewals::new(Some(IDLE));
        renewals.push(&session("a", Timestamp::NEVER), at(1));
        renewals.push(&session("b", Timestamp::NEVER), at(1));
        let batch = renewals.take_batch();
        renewals.push(&session("a", Timestamp::NEVER), at(2));
        renewals.put_back(batch);
        let mut uses: Vec<_> =
            renewals.take_batch().into_iter().map(|r| (r.session.id().expose().to_owned(), r.used)).collect();
        uses.sort();
        assert_eq!(uses, [("a".to_owned(), at(2)), ("b".to_owned(), at(1))]);
    }

    #[test]
    fn beyond_the_limit_renewals_are_dropped_and_counted() {
        let renewals = Renewals::new(Some(IDLE));
        for number in 0..LIMIT + 2 {
            renewals.push(&session(&number.to_string(), Timestamp::NEVER), at(1));
        }
        assert_eq!((renewals.len(), renewals.counts()), (LIMIT, (0, 2)));
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_written_only_when_none_can_come_back() {
        let renewals = Renewals::new(Some(IDLE));
        assert!(renewals.all_written().now_or_never().is_some());
        renewals.push(&session("s", Timestamp::NEVER), at(1));
        let ended = tokio::time::timeout(FLUSH_CHECK, renewals.all_written());
        assert!(ended.await.is_err(), "one waits");
        renewals.batch_is_full().now_or_never().expect("it was asked for");
        renewals.set_writing(true);
        let batch = renewals.take_batch();
        assert!(
            tokio::time::timeout(FLUSH_CHECK, renewals.all_written()).await.is_err(),
            "one is being written"
        );
        renewals.put_back(batch);
        renewals.set_writing(false);
        assert!(tokio::time::timeout(FLUSH_CHECK, renewals.all_written()).await.is_err(), "it has come back");
        renewals.take_batch();
        assert!(renewals.all_written().now_or_never().is_some());
    }
}
