//! Estimates the number of distinct clients with affinity to an instance, without storing client identities.
//!
//! Linear counting (Whang et al. 1990) with a timestamp in each slot. A client's hash selects one of
//! [`PLACES`] slots, and the slot stores when it was last hit. The number of slots hit since a given time
//! gives the estimate.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// Number of slots. Memory per instance with sticky clients is four times as many bytes.
const PLACES: usize = 8192;
const NEVER: u32 = 0;

/// The set of clients with affinity to one instance. Nothing is allocated before the first call of
/// [`note`](Self::note).
#[derive(Debug)]
pub struct DistinctClients {
    /// Per slot: seconds after `born`, counted from 1, or [`NEVER`].
    seen: OnceLock<Box<[AtomicU32]>>,
    born: Instant,
}

impl DistinctClients {
    pub(super) fn new(born: Instant) -> Self {
        DistinctClients { seen: OnceLock::new(), born }
    }

    /// Records a request at `now` from the client with the hash `mark`. `mark` must be uniformly distributed
    /// over `u64`.
    pub fn note(&self, mark: u64, now: Instant) {
        let seen = self.seen.get_or_init(|| (0..PLACES).map(|_| AtomicU32::new(NEVER)).collect());
        let Some(place) = seen.get(mark as usize % PLACES) else { return };
        let now = self.second(now);
        // The load before the store keeps the cache line shared: within one second only the first request
        // writes it.
        if place.load(Relaxed) < now {
            place.store(now, Relaxed);
        }
    }

    /// Estimated number of distinct clients seen within `time` before `now`, with a resolution of one second.
    /// Exact for a few clients, within about 1 % up to 8,000 and 5 % up to 30,000 (one standard deviation).
    /// The result never exceeds 74,000.
    pub fn within(&self, time: Duration, now: Instant) -> u64 {
        let time = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let since = self.second(now).saturating_sub(time);
        let Some(seen) = self.seen.get() else { return 0 };
        let is_unseen = |place: &&AtomicU32| place.load(Relaxed) < since.max(NEVER + 1);
        let unseen = seen.iter().filter(is_unseen).count();
        let all = PLACES as f64;
        (all * (all / unseen.max(1) as f64).ln()).round() as u64
    }

    fn second(&self, instant: Instant) -> u32 {
        let seconds = instant.saturating_duration_since(self.born).as_secs();
        u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(pinned: &DistinctClients, clients: u64, now: Instant) {
        let mut chance = fastrand::Rng::with_seed(7);
        (0..clients).for_each(|_| pinned.note(chance.u64(..), now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_counts_once_however_often_it_comes() {
        let born = Instant::now();
        for (clients, error) in [(0, 0), (1, 0), (10, 0), (100, 2), (5_000, 100), (30_000, 1_500)] {
            let pinned = DistinctClients::new(born);
            (0..3).for_each(|_| note(&pinned, clients, born));
            let counted = pinned.within(Duration::ZERO, born);
            assert!(counted.abs_diff(clients) <= error, "{counted} instead of {clients}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_stay_away_are_forgotten_and_those_who_come_are_not() {
        let born = Instant::now();
        let pinned = DistinctClients::new(born);
        note(&pinned, 9, born);
        let later = born + Duration::from_secs(60);
        let [all, late] = [60, 59].map(Duration::from_secs);
        assert_eq!((pinned.within(all, later), pinned.within(late, later)), (9, 0));
        note(&pinned, 4, later);
        assert_eq!((pinned.within(all, later), pinned.within(late, later)), (9, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_can_be_told_apart_are_many() {
        let pinned = DistinctClients::new(Instant::now());
        note(&pinned, 1_000_000, Instant::now());
        assert_eq!(pinned.within(Duration::ZERO, Instant::now()), 73_817);
    }
}
