//! Whether the entries of the session cache may be served.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::Instant;

/// A point on the cache's monotonic clock, in microseconds since the cache was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    pub(crate) const NEVER: Timestamp = Timestamp(u64::MAX);
    #[cfg(test)]
    pub(crate) const START: Timestamp = Timestamp(0);

    pub(crate) fn after(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(micros(time)))
    }

    /// Saturates at the start of the clock.
    pub(crate) fn before(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(micros(time)))
    }

    /// Zero if `earlier` is later than `self`.
    pub(crate) fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn as_micros(self) -> u64 {
        self.0
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// When a value was read and in which generation; [`CacheValidity`] decides by it whether the value is still
/// valid. Must be taken before the store is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadStamp {
    pub(crate) generation: u64,
    pub(crate) at: Timestamp,
}

/// The lease under which the cache may be used, and the current generation.
///
/// While the connection that delivers invalidations works, the lease is extended again and again. Each time
/// it is set to a fixed span after the moment a heartbeat was sent. The store reports the heartbeat only
/// after every change made before it, so all those changes have been received by then. A lease that is not
/// extended expires by itself. A new generation begins with each new connection, because changes before it
/// may have been missed: values of an older generation are no longer valid.
#[derive(Debug)]
pub(crate) struct CacheValidity {
    base: Instant,
    generation: AtomicU64,
    /// The last generation in which a lease was held.
    leased: AtomicU64,
    /// A [`Timestamp`]: the end of the lease.
    until: AtomicU64,
    /// Maximum age of a value in microseconds, whatever the lease is. It is the only limit where the store
    /// does not push invalidations.
    max_age: AtomicU64,
}

impl CacheValidity {
    /// Starts without a lease.
    pub(crate) fn new() -> Self {
        CacheValidity {
            base: Instant::now(),
            generation: AtomicU64::new(0),
            leased: AtomicU64::new(0),
            until: AtomicU64::new(0),
            max_age: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn moment(&self, instant: Instant) -> Timestamp {
        Timestamp(micros(instant.saturating_duration_since(self.base)))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.moment(Instant::now())
    }

    pub(crate) fn reading(&self) -> ReadStamp {
        ReadStamp { generation: self.generation.load(SeqCst), at: self.now() }
    }

    /// Begins a new generation: from now on every change in the store is received. No lease is held until
    /// [`extend`](Self::extend).
    pub(crate) fn begin(&self) {
        self.until.store(0, SeqCst);
        self.generation.fetch_add(1, SeqCst);
        self.max_age.store(u64::MAX, SeqCst);
    }

    /// Begins a new generation on the same connection, keeping the lease: all values read before are invalid.
    pub(crate) fn begin_anew(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// Begins a generation in which the store pushes no invalidations. The lease is unlimited, and a value is
    /// valid for `max_age` after its read.
    pub(crate) fn begin_without_link(&self, max_age: Duration) {
        self.begin();
        self.max_age.store(micros(max_age), SeqCst);
        self.extend(Timestamp::NEVER);
    }

    /// Whether the store pushes invalidations. If false, values are limited by age.
    pub(crate) fn is_linked(&self) -> bool {
        self.max_age.load(SeqCst) == u64::MAX && self.generation.load(SeqCst) > 0
    }

    /// Returns how long a value may be served after it has changed in the store, at most: `lease`, or the
    /// maximum age where the store pushes no invalidations.
    pub(crate) fn longest_ignorance(&self, lease: Duration) -> Duration {
        match self.max_age.load(SeqCst) {
            u64::MAX => lease,
            max_age => Duration::from_micros(max_age),
        }
    }

    /// Extends the lease to `until`. Never shortens it.
    pub(crate) fn extend(&self, until: Timestamp) {
        self.leased.fetch_max(self.generation.load(SeqCst), SeqCst);
        self.until.fetch_max(until.0, SeqCst);
    }

    /// Ends the lease now.
    pub(crate) fn lapse(&self) {
        self.until.fetch_min(self.now().0, SeqCst);
    }

    /// Returns whether a lease is held at `now`.
    pub(crate) fn is_held(&self, now: Timestamp) -> bool {
        now.0 < self.until.load(SeqCst)
    }

    /// Returns whether a value with this stamp may be served at `now`.
    pub(crate) fn trusts(&self, reading: ReadStamp, now: Timestamp) -> bool {
        self.is_held(now) && now < self.trusted_until(reading)
    }

    /// Returns whether no lease was held in a later generation. If one was, a change
    /// between the two generations may have been missed.
    pub(crate) fn is_latest(&self, reading: ReadStamp) -> bool {
        reading.generation >= self.leased.load(SeqCst)
    }

    /// Returns until when a value with this stamp is, or was, known to equal the store's. Of an older
    /// generation this is the moment of the read.
    pub(crate) fn trusted_until(&self, reading: ReadStamp) -> Timestamp {
        if reading.generation != self.generation.load(SeqCst) {
            return reading.at;
        }
        let aged = reading.at.0.saturating_add(self.max_age.load(SeqCst));
        Timestamp(aged.min(self.until.load(SeqCst)).max(reading.at.0))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LEASE: Duration = Duration::from_millis(250);

    #[tokio::test(start_paused = true)]
    async fn without_a_lease_nothing_is_trusted() {
        let freshness = CacheValidity::new();
        assert!(!freshness.trusts(freshness.reading(), freshness.now()));
        freshness.begin();
        assert!(!freshness.trusts(freshness.reading(), freshness.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_by_itself_and_an_extension_never_shortens_it() {
        let freshness = CacheValidity::new();
        freshness.begin();
        let reading = freshness.reading();
        freshness.extend(freshness.now().after(LEASE));
        freshness.extend(freshness.now().after(LEASE / 2));
        advance(LEASE - Duration::from_micros(1)).await;
        assert!(freshness.trusts(reading, freshness.now()));
        advance(Duration::from_micros(1)).await;
        assert!(!freshness.trusts(reading, freshness.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_generation_ends_the_trust_in_older_readings_for_good() {
        let freshness = CacheValidity::new();
        freshness.begin();
        let reading = freshness.reading();
        freshness.extend(freshness.now().after(LEASE));
        freshness.begin();
        freshness.extend(freshness.now().after(LEASE));
        assert!(!freshness.trusts(reading, freshness.now()));
        assert!(freshness.trusts(freshness.reading(), freshness.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_is_the_latest_news_until_a_later_generation_has_a_lease() {
        let freshness = CacheValidity::new();
        freshness.begin();
        let reading = freshness.reading();
        freshness.extend(freshness.now().after(LEASE));
        freshness.lapse();
        freshness.begin();
        assert!(freshness.is_latest(reading), "nothing could be heard since");
        freshness.extend(freshness.now().after(LEASE));
        assert!(!freshness.is_latest(reading));
        assert!(freshness.is_latest(freshness.reading()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_link_a_reading_is_trusted_for_its_age() {
        let freshness = CacheValidity::new();
        freshness.begin_without_link(LEASE);
        let reading = freshness.reading();
        advance(LEASE - Duration::from_micros(1)).await;
        assert!(freshness.trusts(reading, freshness.now()));
        advance(Duration::from_micros(1)).await;
        assert!(!freshness.trusts(reading, freshness.now()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_the_lease_it_is_known_how_long_a_reading_was_right() {
        let freshness = CacheValidity::new();
        freshness.begin();
        let reading = freshness.reading();
        let end = freshness.now().after(LEASE);
        freshness.extend(end);
        advance(10 * LEASE).await;
        assert_eq!(freshness.trusted_until(reading), end);
        freshness.begin();
        assert_eq!(freshness.trusted_until(reading), reading.at);
    }
}
