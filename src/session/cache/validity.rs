//! Whether what the cache holds may be believed.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::Instant;

/// A point on the cache's own monotonic clock, in microseconds since the cache was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    pub(crate) const NEVER: Timestamp = Timestamp(u64::MAX);
    #[cfg(test)]
    pub(crate) const START: Timestamp = Timestamp(0);

    pub(crate) fn after(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(micros(time)))
    }

    /// The start of the clock at the earliest.
    pub(crate) fn before(self, time: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(micros(time)))
    }

    /// Zero if `earlier` is later.
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

/// When a value was read, and under which generation: what must be known of it to judge it later.
/// Taken before the store is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadStamp {
    pub(crate) generation: u64,
    pub(crate) at: Timestamp,
}

/// The lease under which the cache may be used, and its generation.
///
/// While the link that brings changes is sound, the lease is extended again and again, each time to a
/// fixed span after a question that the store has answered; changes made before that answer arrived
/// before it. A lease that is not extended runs out by itself. What was read before the link began
/// belongs to an older generation and is not believed any more.
#[derive(Debug)]
pub(crate) struct CacheValidity {
    base: Instant,
    generation: AtomicU64,
    /// The last generation that had a lease.
    leased: AtomicU64,
    /// A [`Timestamp`]: the end of the lease.
    until: AtomicU64,
    /// Microseconds for which a reading is believed whatever the lease says; the only bound without a
    /// link.
    max_age: AtomicU64,
}

impl CacheValidity {
    /// Without a lease.
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

    /// Begins a generation: from here on every change will be heard of. There is no lease yet.
    pub(crate) fn begin(&self) {
        self.until.store(0, SeqCst);
        self.generation.fetch_add(1, SeqCst);
        self.max_age.store(u64::MAX, SeqCst);
    }

    /// Begins another generation over the same link: what was read before is not believed any more.
    pub(crate) fn begin_anew(&self) {
        self.generation.fetch_add(1, SeqCst);
    }

    /// Begins a generation in which nothing is heard of changes, so that readings age.
    pub(crate) fn begin_without_link(&self, max_age: Duration) {
        self.begin();
        self.max_age.store(micros(max_age), SeqCst);
        self.extend(Timestamp::NEVER);
    }

    /// Whether changes are heard of; otherwise readings age.
    pub(crate) fn is_linked(&self) -> bool {
        self.max_age.load(SeqCst) == u64::MAX && self.generation.load(SeqCst) > 0
    }

    /// How long something may be trusted after it has changed, at most: a lease, or without a link the age.
    pub(crate) fn longest_ignorance(&self, lease: Duration) -> Duration {
        match self.max_age.load(SeqCst) {
            u64::MAX => lease,
            max_age => Duration::from_micros(max_age),
        }
    }

    /// Extends the lease; never shortens it.
    pub(crate) fn extend(&self, until: Timestamp) {
        self.leased.fetch_max(self.generation.load(SeqCst), SeqCst);
        self.until.fetch_max(until.0, SeqCst);
    }

    /// Ends the lease now.
    pub(crate) fn lapse(&self) {
        self.until.fetch_min(self.now().0, SeqCst);
    }

    /// Whether there is a lease.
    pub(crate) fn is_held(&self, now: Timestamp) -> bool {
        now.0 < self.until.load(SeqCst)
    }

    /// Whether what was read then is still what the store has.
    pub(crate) fn trusts(&self, reading: ReadStamp, now: Timestamp) -> bool {
        self.is_held(now) && now < self.trusted_until(reading)
    }

    /// Whether nothing was heard of that could be newer: there was no lease since the one under which it was read.
    /// With a later lease it is unknown what happened between the two.
    pub(crate) fn is_latest(&self, reading: ReadStamp) -> bool {
        reading.generation >= self.leased.load(SeqCst)
    }

    /// Until when what was read then is, or was, known to be what the store has.
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
