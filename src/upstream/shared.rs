//! What the instances of one upstream have in common, whatever the configuration says at the time.

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
    /// Of sessions that are moved.
    moves: RateLimiter,
    budget: Budget,
    /// Where instances are chosen by their load.
    tournament: ArcSwapOption<LeastLoadedIndex>,
    alarm: Notify,
}

impl UpstreamShared {
    /// Requests and checks under way on all instances.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// What may be sent again.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Joins those who wait for a slot; `None` when `length` wait already. Whoever joins must then look once more
    /// for a free slot: one that became free just before is not handed out.
    pub fn join(self: &Arc<Self>, wish: SlotRequest, length: usize) -> Option<QueueTicket> {
        Queue::join(self, wish, length)
    }

    /// Finds places for those who wait after `instances`, their standing or their slots have changed; who waits
    /// in vain now is told to choose again.
    pub fn rematch_waiters(&self, instances: &[Arc<Instance>]) {
        self.queue.rematch(instances);
        instances.iter().for_each(|instance| instance.offer());
    }

    /// Wakes the health manager when requests have met something at an instance that it should look at.
    pub fn failure_signal(&self) -> &Notify {
        &self.alarm
    }

    /// The instances among which the least loaded wins, in the order of their places; `None` when loads do not
    /// matter.
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
            // What began or ended before the instances knew their places.
            entrants.unwrap_or_default().iter().for_each(|instance| tournament.update(instance));
        }
        tournament
    }

    /// Whether one more session may be moved now, where so many may per second.
    pub fn may_move(&self, per_second: u32) -> bool {
        self.moves.allows(per_second)
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(super) fn entered(&self, instance: &Instance) {
        self.load.fetch_add(1, Relaxed);
        if let Some(tournament) = &*self.tournament.load() {
            tournament.took(instance);
        }
    }

    pub(super) fn left(&self, instance: &Arc<Instance>) {
        self.load.fetch_sub(1, Relaxed);
        if let Some(tournament) = &*self.tournament.load() {
            tournament.update(instance);
        }
        instance.offer();
    }
}
