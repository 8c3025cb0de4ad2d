//! The load of an instance: requests and health checks in flight.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// What takes a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Request,
    Check,
}

/// Requests are counted in the lower half of the word, health checks in the upper half.
const CHECK: u64 = 1 << 32;

impl Work {
    fn unit(self) -> u64 {
        match self {
            Work::Request => 1,
            Work::Check => CHECK,
        }
    }
}

/// Counts of requests and health checks in flight, each below 2^32. Both are in one word, so that a reader
/// always sees a consistent pair while the other kind begins or ends.
#[derive(Debug, Default)]
pub(super) struct Load(AtomicU64);

impl Load {
    pub(super) fn requests(&self) -> usize {
        (self.0.load(SeqCst) % CHECK) as usize
    }

    /// Requests and health checks.
    pub(super) fn all(&self) -> usize {
        all(self.0.load(SeqCst))
    }

    pub(super) fn add(&self, what: Work) {
        self.0.fetch_add(what.unit(), SeqCst);
    }

    /// Adds one if fewer than `limit` are in flight. Returns false otherwise.
    pub(super) fn add_below(&self, limit: usize, what: Work) -> bool {
        let next = |counts| (all(counts) < limit).then_some(counts + what.unit());
        self.0.fetch_update(SeqCst, SeqCst, next).is_ok()
    }

    pub(super) fn remove(&self, what: Work) {
        self.0.fetch_sub(what.unit(), SeqCst);
    }
}

fn all(counts: u64) -> usize {
    (counts % CHECK + counts / CHECK) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_take_room_and_are_no_requests() {
        let load = Load::default();
        load.add(Work::Check);
        assert!(load.add_below(2, Work::Request));
        assert_eq!((load.requests(), load.all()), (1, 2));
        assert!(!load.add_below(2, Work::Request) && !load.add_below(2, Work::Check));
        load.remove(Work::Request);
        assert_eq!((load.requests(), load.all()), (0, 1));
        load.remove(Work::Check);
        assert_eq!(load.all(), 0);
    }

    #[test]
    fn whoever_looks_sees_every_request_whatever_checks_come_and_go() {
        let load = Load::default();
        load.add(Work::Request);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    load.add(Work::Check);
                    load.remove(Work::Check);
                }
            });
            for _ in 0..10_000 {
                assert_eq!(load.requests(), 1);
            }
        });
    }
}
