//! State that all instances of an upstream share. It survives changes of the configuration.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::budget::Budget;
use super::instance::Instance;
use super::least_loaded::LeastLoadedIndex;
use super::queue::{Queue, QueueTicket, SlotRequest};
use super::rate_limiter::RateLimiter;

/// Shared by the instances of an upstream.
#[derive(Debug, Default)]
pub struct UpstreamShared {
    load: AtomicUsize,
    queue: Queue,
    /// Limits how many sessions are moved to another instance per second.
    moves: RateLimiter,
    budget: Budget,
    /// Set if instances are chosen by their load.
    tournament: ArcSwapOption<LeastLoadedIndex>,
    alarm: Notify,
}

impl UpstreamShared {
    /// Requests and health checks in flight on all instances.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// The retry budget.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Number of requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Joins the queue. Returns `None` if `length` requests wait already. The caller must then try once more
    /// to take a free slot before it waits, because a slot that became free just before is not handed out.
    pub fn join(self: &Arc<Self>, wish: SlotRequest, length: usize) -> Option<QueueTicket> {
        Queue::join(self, wish, length)
    }

    /// Re-evaluates the queue after the instances, their condition or their slots have changed. Free slots
    /// are handed out. Waiters that cannot be granted their request any more are notified to choose again.
    pub fn rematch_waiters(&self, instances: &[Arc<Instance>]) {
        self.queue.rematch(instances);
        instances.iter().for_each(|instance| instance.offer());
    }

    /// Wakes the health manager when failures in a row have reached the limit on an instance.
    pub fn failure_signal(&self) -> &Notify {
        &self.alarm
    }

    /// Builds the index for least-loaded choices over `entrants`, and stores and returns it. The indexes it
    /// returns are those of `entrants`. With `None` the index is removed, because loads do not matter.
    pub fn set_least_loaded_index(
        &self,
        entrants: Option<&[Arc<Instance>]>,
    ) -> Option<Arc<LeastLoadedIndex>> {
        let tournament = entrants.map(|entrants| Arc::new(LeastLoadedIndex::new(entrants)));
        for (instance, place) in entrants.unwrap_or_default().iter().zip(0..) {
            instance.set_place(place);
        }
        self.tournament.store(tournament.clone());
        if let Some(tournament) = &tournament {
            // Covers requests that began or ended before the instances had their new indexes.
            entrants.unwrap_or_default().iter().for_each(|instance| tournament.update(instance));
        }
        tournament
    }

    /// Takes one permit to move a session, at a rate of `per_second`. Returns false if the rate is used up.
    pub fn may_move(&self, per_second: u32) -> bool {
        self.moves.allows(per_second)
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Counts a slot taken on `instance`.
    pub(super) fn entered(&self, instance: &Instance) {
        self.load.fetch_add(1, Relaxed);
        if let Some(tournament) = &*self.tournament.load() {
            tournament.took(instance);
        }
    }

    /// Counts a slot returned on `instance`, and hands it to the next waiting request. The instance's own
    /// load must be decremented before.
    pub(super) fn left(&self, instance: &Arc<Instance>) {
        self.load.fetch_sub(1, Relaxed);
        if let Some(tournament) = &*self.tournament.load() {
            tournament.update(instance);
        }
        instance.offer();
    }
}
