//! The embedded session store. Its sessions belong to this process and are lost when it exits.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::cache::TombstoneReason;
use super::{Contents, Fields, Lookup, Read, Record, SessionId, Ttl};
use crate::clock;

/// Maximum number of expired sessions removed per call. It bounds the latency of a call when many sessions
/// expire together.
const REAPED_PER_CALL: usize = 32;

/// Sessions in memory, shared by all clones.
///
/// One mutex guards the map. It is held for a map operation and never across an await; fields are shared
/// rather than copied. Every call also removes some expired sessions, so memory use is bounded by the live
/// ones.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Sessions>>);

#[derive(Default)]
struct Sessions {
    by_id: HashMap<SessionId, Entry>,
    /// One element per entry, ordered by deadline. The number makes keys with equal deadlines distinct.
    by_deadline: BTreeMap<(Instant, u64), SessionId>,
    inserted: u64,
}

struct Entry {
    /// `None` marks a tombstone: the session was replaced by another one.
    contents: Option<Contents>,
    deadline: Instant,
    number: u64,
}

/// Upper limit of a TTL. A larger one could overflow [`Instant`].
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of sessions held, including expired ones that have not been removed yet.
    pub fn len(&self) -> usize {
        self.sessions().by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn load(&self, id: &SessionId) -> Lookup {
        let now = Instant::now();
        let mut sessions = self.sessions();
        sessions.reap(now);
        match sessions.live(id, now) {
            Some(Entry { contents: Some(contents), deadline, .. }) => {
                let (contents, ttl) = (contents.clone(), Ttl::Left(*deadline - now));
                let read = Read { at: Some(clock::steady_unix_time()), by: None };
                Lookup::Found(Record { contents, ttl, read })
            }
            Some(_) => Lookup::Absent(Some(TombstoneReason::Replaced)),
            None => Lookup::Absent(None),
        }
    }

    pub(super) fn create(&self, id: &SessionId, fields: Fields, ttl: Duration) {
        let now = Instant::now();
        let mut sessions = self.sessions();
        sessions.reap(now);
        sessions.remove(id);
        sessions.insert(id.clone(), Some(fields.into()), now + ttl.min(FOREVER));
    }

    /// Removes a session. Only [`TombstoneReason::Replaced`] leaves a tombstone: no other program writes to
    /// this store, so a revoked session cannot reappear. Returns whether a live session was removed.
    pub(super) fn bury(&self, id: &SessionId, death: TombstoneReason) -> bool {
        let now = Instant::now();
        let mut sessions = self.sessions();
        sessions.reap(now);
        let removed = sessions.remove(id);
        if let (TombstoneReason::Replaced, Some(entry)) = (death, &removed) {
            sessions.insert(id.clone(), None, entry.deadline);
        }
        removed.is_some_and(|entry| entry.contents.is_some() && entry.deadline > now)
    }

    /// Removes every session whose contents satisfy `matches`; returns how many of them were live. The lock
    /// is held while all sessions are scanned, so `matches` must be fast.
    pub(in crate::session) fn end_all(&self, matches: impl Fn(&Contents) -> bool) -> u64 {
        let now = Instant::now();
        let mut sessions = self.sessions();
        sessions.reap(now);
        let found = sessions.by_id.iter().filter(|(_, entry)| entry.contents.as_ref().is_some_and(&matches));
        let ids: Vec<SessionId> = found.map(|(id, _)| id.clone()).collect();
        let ended = ids.iter().filter_map(|id| sessions.remove(id));
        ended.filter(|entry| entry.deadline > now).count() as u64
    }

    pub(super) fn renew(&self, id: &SessionId, ttl: Duration) {
        let now = Instant::now();
        let mut sessions = self.sessions();
        sessions.reap(now);
        let deadline = now + ttl.min(FOREVER);
        let longer =
            sessions.live(id, now).is_some_and(|entry| entry.contents.is_some() && entry.deadline < deadline);
        if longer && let Some(entry) = sessions.remove(id) {
            sessions.insert(id.clone(), entry.contents, deadline);
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        // A poisoned lock is usable: no code that holds it can panic in the middle of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    fn live(&self, id: &SessionId, now: Instant) -> Option<&Entry> {
        self.by_id.get(id).filter(|entry| entry.deadline > now)
    }

    fn insert(&mut self, id: SessionId, contents: Option<Contents>, deadline: Instant) {
        self.inserted += 1;
        let number = self.inserted;
        self.by_deadline.insert((deadline, number), id.clone());
        self.by_id.insert(id, Entry { contents, deadline, number });
    }

    fn remove(&mut self, id: &SessionId) -> Option<Entry> {
        let entry = self.by_id.remove(id)?;
        self.by_deadline.remove(&(entry.deadline, entry.number));
        Some(entry)
    }

    fn reap(&mut self, now: Instant) {
        for _ in 0..REAPED_PER_CALL {
            match self.by_deadline.first_entry() {
                Some(first) if first.key().0 <= now => self.by_id.remove(&first.remove()),
                _ => return,
            };
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::advance;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn fields() -> Fields {
        Fields::from_iter([("user_id".to_owned(), json!("42"))])
    }

    /// The TTL of session 1.
    fn ttl(store: &MemoryStore) -> Ttl {
        store.load(&id(1)).found().unwrap().ttl
    }

    fn id(number: usize) -> SessionId {
        SessionId::new(&format!("s{number}"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_is_there_until_its_ttl_and_not_at_it() {
        let store = MemoryStore::new();
        store.create(&id(1), fields(), TTL);
        advance(TTL - Duration::from_millis(1)).await;
        assert_eq!(ttl(&store), Ttl::Left(Duration::from_millis(1)));
        advance(Duration::from_millis(1)).await;
        assert_eq!(store.load(&id(1)), Lookup::Absent(None));
        assert!(!store.bury(&id(1), TombstoneReason::Revoked));
    }

    #[tokio::test(start_paused = true)]
    async fn renewal_counts_from_now_and_never_shortens() {
        let store = MemoryStore::new();
        store.create(&id(1), fields(), TTL);
        advance(TTL / 2).await;
        store.renew(&id(1), TTL);
        assert_eq!(ttl(&store), Ttl::Left(TTL));
        store.renew(&id(1), TTL / 2);
        assert_eq!(ttl(&store), Ttl::Left(TTL));
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_session_is_not_renewed_back_to_life() {
        let store = MemoryStore::new();
        store.create(&id(1), fields(), TTL);
        advance(TTL).await;
        store.renew(&id(1), TTL);
        assert_eq!(store.load(&id(1)), Lookup::Absent(None));
    }

    #[tokio::test(start_paused = true)]
    async fn expired_sessions_are_removed_by_calls_about_others() {
        let store = MemoryStore::new();
        (0..3 * REAPED_PER_CALL).for_each(|number| store.create(&id(number), fields(), TTL));
        store.renew(&id(0), 2 * TTL);
        advance(TTL).await;
        (0..3).for_each(|_| drop(store.load(&SessionId::new("other"))));
        assert_eq!(store.len(), 1);
        assert_eq!(store.sessions().by_deadline.len(), 1);
        assert!(matches!(store.load(&id(0)), Lookup::Found(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn ended_sessions_leave_nothing_behind_and_replaced_ones_are_known_for_the_rest_of_their_lives() {
        let store = MemoryStore::new();
        store.create(&id(1), fields(), TTL);
        assert!(store.bury(&id(1), TombstoneReason::Replaced));
        store.create(&id(2), fields(), TTL);
        assert_eq!(store.load(&id(1)), Lookup::Absent(Some(TombstoneReason::Replaced)));
        store.renew(&id(1), 10 * TTL);
        assert!(store.bury(&id(2), TombstoneReason::Revoked));
        assert!(!store.bury(&id(2), TombstoneReason::Revoked));
        advance(TTL).await;
        assert_eq!(store.load(&id(1)), Lookup::Absent(None));
        assert_eq!((store.len(), store.sessions().by_deadline.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn ending_all_that_match_leaves_the_others_whole() {
        let store = MemoryStore::new();
        (0..3).for_each(|number| store.create(&id(number), fields(), TTL));
        store.create(&id(3), Fields::from_iter([("user_id".to_owned(), json!("7"))]), TTL);
        assert_eq!(store.end_all(|contents| *contents == fields().into()), 3);
        assert_eq!((store.len(), store.sessions().by_deadline.len()), (1, 1));
        assert!(store.load(&id(3)).found().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_ttl_beyond_the_clock_does_not_panic() {
        let store = MemoryStore::new();
        store.create(&id(1), fields(), Duration::MAX);
        store.renew(&id(1), Duration::MAX);
        assert!(matches!(store.load(&id(1)), Lookup::Found(_)));
    }
}
