//! Resolved sessions, kept for all workers of the process.
//!
//! An entry is honoured only while [`CacheValidity`] trusts its reading, and never beyond its own deadline. Every
//! entry comes from a [`InFlightLookup`], and a change that arrives while the store is being asked makes the flight
//! ask again: what was read before the change is not kept, nor told to requests that came after it. Both orders
//! of "a change arrives" and "an answer is kept" meet at the lock of the flight's shard.

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

/// Look-ups of different ids contend for a lock only within a shard. Power of two.
const SHARDS: usize = 32;
/// What an entry weighs beside its id and what it says: slots, pointers, times.
const ENTRY_BYTES: usize = 260;

/// Leases in the longest staleness.
const LEASES: u32 = 4;

/// What is known of an id.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    Active(Arc<Session>),
    /// There is no such session.
    Absent(Absence),
    /// There is something else.
    Unreadable(Unreadable),
}

/// Why there is no session of some id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absence {
    /// It was alive once.
    Ended,
    /// A login has put another one in its place.
    Replaced,
    /// The store does not know it, and neither do we.
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
    /// Whether it may be told by whoever has this [`IdentityMapper::ruleset_id`](super::IdentityMapper::ruleset_id).
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

/// The cache of a process.
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

/// Numbers of a cache.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CacheStats {
    pub entries: u64,
    /// Estimated.
    pub bytes: u64,
    /// Changes heard of.
    pub invalidations: u64,
    /// Revoked and replaced ids that are remembered.
    pub tombstones: u64,
    /// Renewals of sessions written to the store.
    pub renewals_written: u64,
    /// Renewals given up because too many waited.
    pub renewals_dropped: u64,
    /// Looks whether an entry is what the store has.
    pub checks: u64,
    /// Those that found something else in the store: defects.
    pub mismatches: u64,
    /// How long it took until changes of our own were heard of.
    pub invalidation_delays: Histogram,
    /// Whether entries may be used.
    pub fresh: bool,
    /// Whether changes in the store are reported to us; otherwise entries are used for `max_staleness`.
    pub linked: bool,
}

impl SessionCache {
    pub fn new(config: &config::SessionCache, idle_timeout: Option<Duration>) -> Self {
        // The bound in entries is kept by the weight too: no entry weighs less than its share.
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

    /// What is known of `id` for certain.
    pub(crate) fn get(&self, id: &str, now: Timestamp) -> Option<Known> {
        // Nothing is looked for while nothing could be used.
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

    /// The session as it was last known, if it was known to be right at most `bound` ago and is not over.
    pub(crate) fn last_known(&self, id: &str, now: Timestamp, bound: Duration) -> Option<Arc<Session>> {
        let entry = self.entries.get(id)?;
        let session = entry.known.session().filter(|session| session.is_live(now)).cloned()?;
        // The end of a session between two leases was not reported.
        if !self.freshness.is_latest(entry.reading) {
            return None;
        }
        let doubtful_for = now.since(self.freshness.trusted_until(entry.reading));
        (doubtful_for <= bound && self.tombstones.find(id, now).is_none()).then_some(session)
    }

    /// Takes part in the look-up of `id`: in the one under way, or as the leader of a new one if there is none or
    /// its answer may be from before a change.
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

    /// The session may have changed: what is known of it, or just being read, is forgotten.
    pub(crate) fn invalidate(&self, id: &str) {
        self.invalidations.fetch_add(1, Relaxed);
        let flights = self.flights(id);
        if let Some(flight) = flights.get(id) {
            flight.invalidate();
        }
        self.entries.remove(id);
    }

    /// Everything may have changed: all that is known, or just being read, is forgotten.
    pub(crate) fn forget_all(&self) {
        self.invalidations.fetch_add(1, Relaxed);
        self.freshness.begin_anew();
        for flights in &self.flights {
            // A flight that lands later asks again; one that landed before is cleared away below.
            lock(flights).values().for_each(|flight| flight.invalidate());
        }
        self.entries.clear();
    }

    /// The session is over, and stays so for `ttl` even if the store says otherwise.
    pub(crate) fn bury(&self, id: &SessionId, death: TombstoneReason, ttl: Duration) {
        let now = self.freshness.now();
        self.tombstones.bury(id, death, now.after(ttl), now);
        self.invalidate(id.expose());
    }

    /// Likewise, as another vestibule tells it; what is not understood is left alone.
    pub(crate) fn bury_told(&self, text: &str) {
        if let Some((id, death, ttl)) = tombstones::parse(text) {
            self.bury(&id, death, ttl);
        }
    }

    /// All ends of sessions that are remembered, as they are told to another vestibule. They name sessions: to be
    /// kept from logs.
    pub fn told_ends(&self) -> Vec<String> {
        let ends = self.tombstones.all(self.freshness.now()).into_iter();
        ends.map(|(id, death, left)| format!("{} {} {}", left.as_millis(), death.as_str(), id.expose()))
            .collect()
    }

    /// Remembers what another process has [told](Self::told_ends).
    pub fn remember_ends(&self, told: &[String]) {
        told.iter().for_each(|end| self.bury_told(end));
    }

    /// How long a cache that keeps to the same settings may go on without having heard of a change.
    pub(crate) fn longest_ignorance(&self) -> Duration {
        self.freshness.longest_ignorance(self.lease())
    }

    /// How long the cache may be used after a sign that it is in step: a part of the longest staleness, so that
    /// a fault is noticed well before that.
    pub(crate) fn lease(&self) -> Duration {
        self.max_staleness / LEASES
    }

    /// Whether `session` is what is kept and honoured of it.
    pub(crate) fn is_kept(&self, session: &Arc<Session>, now: Timestamp) -> bool {
        let entry = self.entries.get(session.id().expose());
        entry.is_some_and(|entry| {
            let is_it = entry.known.session().is_some_and(|kept| Arc::ptr_eq(kept, session));
            is_it && self.freshness.trusts(entry.reading, now)
        })
    }

    /// Lets go of the store for good: other vestibules need not wait for this one any more.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Completes when the cache has been [left](Self::leave).
    pub(crate) async fn left(&self) {
        self.leaving.cancelled().await;
    }

    /// Completes when no renewal waits to be written.
    pub async fn all_renewals_written(&self) {
        self.renewals.all_written().await;
    }

    /// The numbers as they are now.
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
        // The remainder is within the array; the first shard would only be slower.
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

/// Asks the store on behalf of all who wait. Dropped before it has landed, those are told.
pub(crate) struct LookupOwner {
    cache: Arc<SessionCache>,
    pub(crate) id: SessionId,
    flight: Arc<InFlightLookup>,
}

impl LookupOwner {
    /// To be called before the store is asked, each time.
    pub(crate) fn depart(&self) -> ReadStamp {
        let reading = self.cache.freshness.reading();
        self.flight.depart(reading.at);
        reading
    }

    /// Keeps what was found and gives it to all who wait. False when a change arrived meanwhile, so that the
    /// store must be asked again; with `last`, the answer is then given but not kept.
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
        // A flight that another one has replaced hears of no change any more.
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
    /// What an entry weighs at least.
    share: u64,
}

impl Weighter<SessionId, Entry> for Weights {
    fn weight(&self, id: &SessionId, entry: &Entry) -> u64 {
        let content = entry.known.session().map_or(0, |session| session.text_bytes());
        (ENTRY_BYTES as u64 + (id.expose().len() + content) as u64).max(self.share)
    }
}
