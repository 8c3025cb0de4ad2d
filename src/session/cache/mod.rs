//! In-memory cache of session look-ups, shared by all workers of the process.
//!
//! An entry is served only while [`CacheValidity`] covers its [`ReadStamp`], and never past the session's own
//! expiry. Every entry is inserted by an [`InFlightLookup`] (single flight per id). An invalidation that
//! arrives while a store read is in flight makes the look-up read again: a value read before the change is
//! neither cached nor returned to requests that came after the change. Invalidation and insertion both take
//! the lock of the id's shard. If the invalidation comes first, its flag discards the read; if the insertion
//! comes first, the invalidation removes the entry.

pub(crate) mod checks;
mod delays;
mod in_flight;
#[cfg(test)]
mod interleavings;
mod tombstones;
mod validity;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use tokio_util::sync::CancellationToken;

use super::renewals::Renewals;
use super::user_index_queue::UserIndexQueue;
use super::{Session, SessionId, Unreadable};
use crate::config;
use crate::telemetry::histogram::Histogram;

use checks::Checks;
use delays::Delays;
pub(crate) use in_flight::{Found, InFlightLookup};
pub use tombstones::TombstoneReason;
pub(crate) use tombstones::Tombstones;
pub(crate) use validity::{CacheValidity, ReadStamp, Timestamp};

/// Number of locks for look-ups in flight; ids contend only within one shard. Power of two.
const SHARDS: usize = 32;
/// Estimated fixed cost of an entry in bytes (slots, pointers, timestamps), without its id and its session
/// text.
const ENTRY_BYTES: usize = 260;

/// A lease lasts `max_staleness` divided by this, see [`SessionCache::lease`].
const LEASES: u32 = 4;

/// The result of a look-up of one id.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    Active(Arc<Session>),
    /// The id has no session.
    Absent(Absence),
    /// The key exists, but its value cannot be read as a session.
    Unreadable(Unreadable),
}

/// Why an id has no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// The session existed and has ended: revoked, expired, or seen before by this process and now missing.
    Ended,
    /// A login has replaced the session with one under another id.
    Replaced,
    /// The store has neither the session nor a tombstone, and this process has never seen the session.
    Unknown,
}

impl From<TombstoneReason> for Absence {
    fn from(death: TombstoneReason) -> Self {
        match death {
            TombstoneReason::Revoked => Absence::Ended,
            TombstoneReason::Replaced => Absence::Replaced,
        }
    }
}

impl Known {
    /// Returns whether a resolver whose [`IdentityMapper::ruleset_id`](super::IdentityMapper::ruleset_id) is
    /// `mark` may use the result. True if the session's headers were made under that rule set, or if there is
    /// no session.
    pub(crate) fn suits(&self, mark: u64) -> bool {
        self.session().is_none_or(|session| session.described_by == mark)
    }

    fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Known::Active(session) => Some(session),
            Known::Absent(_) | Known::Unreadable(_) => None,
        }
    }
}

/// The session cache of a process, with the state that is shared with the task that follows changes in the
/// store.
pub struct SessionCache {
    entries: Cache<SessionId, Entry, Weights, RandomState>,
    flights: [Mutex<Flights>; SHARDS],
    hasher: RandomState,
    absent_ttl: Duration,
    pub(crate) max_staleness: Duration,
    pub(crate) freshness: CacheValidity,
    pub(crate) tombstones: Tombstones,
    pub(crate) renewals: Renewals,
    pub(crate) sightings: UserIndexQueue,
    pub(crate) delays: Delays,
    pub(crate) checks: Checks,
    invalidations: AtomicU64,
    leaving: CancellationToken,
}

#[derive(Clone)]
struct Entry {
    known: Known,
    reading: ReadStamp,
}

/// Counters and gauges of a [`SessionCache`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheStats {
    pub entries: u64,
    /// Estimated size of all entries.
    pub bytes: u64,
    /// Invalidations. One id and the whole cache count as one each.
    pub invalidations: u64,
    /// Tombstones in memory, for revoked and for replaced ids.
    pub tombstones: u64,
    /// TTL renewals written to the store.
    pub renewals_written: u64,
    /// TTL renewals dropped because the queue was full.
    pub renewals_dropped: u64,
    /// Consistency checks: comparisons of an entry with the store.
    pub checks: u64,
    /// Consistency checks in which the store had something else and had not reported a change. Each one is a
    /// defect.
    pub mismatches: u64,
    /// Delays between writing a heartbeat key and receiving its invalidation.
    pub invalidation_delays: Histogram,
    /// Whether entries may be used now (a lease is held).
    pub fresh: bool,
    /// Whether the store pushes invalidations. If false, an entry is used for up to `max_staleness` after its
    /// read.
    pub linked: bool,
}

impl SessionCache {
    pub fn new(config: &config::SessionCache, idle_timeout: Option<Duration>) -> Self {
        // The first argument of `Cache::with` only sizes the table. Giving each entry at least `max_bytes /
        // max_entries` of weight makes the bound in bytes enforce the bound in entries too.
        let share = config.max_bytes.div_ceil(config.max_entries);
        let entries = Cache::with(
            config.max_entries.min(config.max_bytes / ENTRY_BYTES),
            config.max_bytes as u64,
            Weights { share: share as u64 },
            RandomState::new(),
            DefaultLifecycle::default(),
        );
        SessionCache {
            entries,
            flights: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            absent_ttl: config.absent_ttl,
            max_staleness: config.max_staleness,
            freshness: CacheValidity::new(),
            tombstones: Tombstones::default(),
            renewals: Renewals::new(idle_timeout),
            sightings: UserIndexQueue::default(),
            delays: Delays::default(),
            checks: Checks::default(),
            invalidations: AtomicU64::new(0),
            leaving: CancellationToken::new(),
        }
    }

    /// Returns the cached result for `id` if it is still valid at `now`. Absent and unreadable results are
    /// valid for `absent_ttl`.
    pub(crate) fn get(&self, id: &str, now: Timestamp) -> Option<Known> {
        // Without a lease no entry is valid, so the table is not searched.
        if !self.freshness.is_held(now) {
            return None;
        }
        let entry = self.entries.get(id)?;
        if !self.freshness.trusts(entry.reading, now) {
            return None;
        }
        let holds = match &entry.known {
            Known::Active(session) => session.is_live(now),
            Known::Absent(_) | Known::Unreadable(_) => now < entry.reading.at.after(self.absent_ttl),
        };
        holds.then_some(entry.known)
    }

    /// For use while the store is unavailable. Returns the cached session if it was known to be current at
    /// most `bound` ago, has not expired, and has no tombstone.
    pub(crate) fn last_known(&self, id: &str, now: Timestamp, bound: Duration) -> Option<Arc<Session>> {
        let entry = self.entries.get(id)?;
        let session = entry.known.session().filter(|session| session.is_live(now)).cloned()?;
        // If a later lease was held, the session may have ended between the two leases without being
        // reported.
        if !self.freshness.is_latest(entry.reading) {
            return None;
        }
        let doubtful_for = now.since(self.freshness.trusted_until(entry.reading));
        (doubtful_for <= bound && self.tombstones.find(id, now).is_none()).then_some(session)
    }

    /// Joins the look-up of `id` in flight. Starts a new one, and returns its [`LookupOwner`], if there is
    /// none, or if the result of the one in flight may be outdated: it has been invalidated, or its store
    /// read began more than `max_staleness` ago.
    pub(crate) fn join(self: &Arc<Self>, id: &SessionId) -> (Arc<InFlightLookup>, Option<LookupOwner>) {
        let now = self.freshness.now();
        let mut flights = self.flights(id.expose());
        if let Some(flight) = flights.get(id)
            && flight.takes_more(now.before(self.max_staleness))
        {
            return (Arc::clone(flight), None);
        }
        let flight = Arc::new(InFlightLookup::default());
        flight.depart(now);
        flights.insert(id.clone(), Arc::clone(&flight));
        let leader = LookupOwner { cache: Arc::clone(self), id: id.clone(), flight: Arc::clone(&flight) };
        (flight, Some(leader))
    }

    /// Invalidates `id`: removes its entry and makes a look-up in flight read the store again.
    pub(crate) fn invalidate(&self, id: &str) {
        self.invalidations.fetch_add(1, Relaxed);
        let flights = self.flights(id);
        if let Some(flight) = flights.get(id) {
            flight.invalidate();
        }
        self.entries.remove(id);
    }

    /// Invalidates everything: removes all entries and makes all look-ups in flight read the store again.
    pub(crate) fn forget_all(&self) {
        self.invalidations.fetch_add(1, Relaxed);
        self.freshness.begin_anew();
        for flights in &self.flights {
            // The flags are set before the entries are cleared. A look-up that finishes after its flag is set
            // reads again; an entry inserted before that is removed by `clear` below.
            lock(flights).values().for_each(|flight| flight.invalidate());
        }
        self.entries.clear();
    }

    /// Writes a tombstone for `id` into memory and invalidates the id. For `ttl`, look-ups return the session
    /// as absent even if the store still has it.
    pub(crate) fn bury(&self, id: &SessionId, death: TombstoneReason, ttl: Duration) {
        let now = self.freshness.now();
        self.tombstones.bury(id, death, now.after(ttl), now);
        self.invalidate(id.expose());
    }

    /// As [`bury`](Self::bury), for a tombstone message from another vestibule. A malformed message is
    /// ignored.
    pub(crate) fn bury_told(&self, text: &str) {
        if let Some((id, death, ttl)) = tombstones::parse(text) {
            self.bury(&id, death, ttl);
        }
    }

    /// Serialises all tombstones for another vestibule process, in the form `<milliseconds left> <reason>
    /// <id>`. The strings contain session ids and must not be logged.
    pub fn told_ends(&self) -> Vec<String> {
        let ends = self.tombstones.all(self.freshness.now()).into_iter();
        ends.map(|(id, death, left)| format!("{} {} {}", left.as_millis(), death.as_str(), id.expose()))
            .collect()
    }

    /// Adds the tombstones that another process has [serialised](Self::told_ends).
    pub fn remember_ends(&self, told: &[String]) {
        told.iter().for_each(|end| self.bury_told(end));
    }

    /// Returns the longest time for which a cache with the same settings and the same kind of store link may
    /// serve an entry after it has changed in the store.
    pub(crate) fn longest_ignorance(&self) -> Duration {
        self.freshness.longest_ignorance(self.lease())
    }

    /// Returns how long the cache may be used after a heartbeat: `max_staleness / 4`. The lease is a
    /// fraction, so that a failure is detected well before `max_staleness` has passed.
    pub(crate) fn lease(&self) -> Duration {
        self.max_staleness / LEASES
    }

    /// Returns whether `session` itself (same `Arc`) is cached and valid at `now`.
    pub(crate) fn is_kept(&self, session: &Arc<Session>, now: Timestamp) -> bool {
        let entry = self.entries.get(session.id().expose());
        entry.is_some_and(|entry| {
            let is_it = entry.known.session().is_some_and(|kept| Arc::ptr_eq(kept, session));
            is_it && self.freshness.trusts(entry.reading, now)
        })
    }

    /// Deregisters this cache from the store for good, so that other vestibules no longer wait for it.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Completes when [`leave`](Self::leave) has been called.
    pub(crate) async fn left(&self) {
        self.leaving.cancelled().await;
    }

    /// Completes when no TTL renewal is queued or being written.
    pub async fn all_renewals_written(&self) {
        self.renewals.all_written().await;
    }

    /// Returns a snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        let (renewals_written, renewals_dropped) = self.renewals.counts();
        let (checks, mismatches) = self.checks.counts();
        CacheStats {
            checks,
            mismatches,
            invalidation_delays: self.delays.all(),
            renewals_written,
            renewals_dropped,
            entries: self.entries.len() as u64,
            bytes: self.entries.weight(),
            invalidations: self.invalidations.load(Relaxed),
            tombstones: self.tombstones.len() as u64,
            fresh: self.freshness.is_held(self.freshness.now()),
            linked: self.freshness.is_linked(),
        }
    }

    fn flights(&self, id: &str) -> MutexGuard<'_, Flights> {
        let shard = usize::try_from(self.hasher.hash_one(id)).unwrap_or(0) % SHARDS;
        // The remainder is always in range. The fallback avoids a panic path; all ids in one shard would only
        // be slower.
        let flights = self.flights.get(shard).unwrap_or_else(|| &self.flights[0]);
        lock(flights)
    }
}

type Flights = HashMap<SessionId, Arc<InFlightLookup>>;

fn lock(flights: &Mutex<Flights>) -> MutexGuard<'_, Flights> {
    flights.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for SessionCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionCache").finish_non_exhaustive()
    }
}

/// Handle of the one task that reads the store for an [`InFlightLookup`]. When dropped before
/// [`land`](Self::land) has succeeded, the waiting requests are woken without a result.
pub(crate) struct LookupOwner {
    cache: Arc<SessionCache>,
    pub(crate) id: SessionId,
    flight: Arc<InFlightLookup>,
}

impl LookupOwner {
    /// Starts a store read. Must be called before each read: an invalidation that comes later then discards
    /// its result.
    pub(crate) fn depart(&self) -> ReadStamp {
        let reading = self.cache.freshness.reading();
        self.flight.depart(reading.at);
        reading
    }

    /// Finishes a store read. Caches `found` and returns it to all waiting requests. Returns false if an
    /// invalidation arrived during the read; the caller must then read again. With `last`, such a result is
    /// returned to the waiting requests but not cached.
    pub(crate) fn land(&self, found: Found, reading: ReadStamp, last: bool) -> bool {
        let id = self.id.expose();
        let mut flights = self.cache.flights(id);
        let invalidated = self.flight.take_invalidation();
        if invalidated && !last {
            return false;
        }
        let found = found.map(|known| match self.cache.tombstones.find(id, self.cache.freshness.now()) {
            Some(death) => Known::Absent(death.into()),
            None => known,
        });
        // A newer flight of the same id receives the invalidations now, so the result of this one must not be
        // cached.
        let leads = flights.get(id).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight));
        if let (Ok(known), true, false) = (&found, leads, invalidated) {
            self.cache.entries.insert(self.id.clone(), Entry { known: known.clone(), reading });
        }
        if leads {
            flights.remove(id);
        }
        drop(flights);
        self.flight.land(Some(found));
        true
    }
}

impl Drop for LookupOwner {
    fn drop(&mut self) {
        let mut flights = self.cache.flights(self.id.expose());
        if flights.get(&self.id).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flights.remove(&self.id);
        }
        drop(flights);
        self.flight.land(None);
    }
}

#[derive(Clone)]
struct Weights {
    /// Minimum weight of an entry.
    share: u64,
}

impl Weighter<SessionId, Entry> for Weights {
    fn weight(&self, id: &SessionId, entry: &Entry) -> u64 {
        let content = entry.known.session().map_or(0, |session| session.text_bytes());
        (ENTRY_BYTES as u64 + (id.expose().len() + content) as u64).max(self.share)
    }
}
