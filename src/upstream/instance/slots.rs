//! Load and concurrency limits of an instance.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Instance;
use crate::upstream::load::Work;
use crate::upstream::shared_slots::SharedSlots;

impl Instance {
    /// Limit of concurrent requests; `None` = unlimited.
    pub fn slots(&self) -> Option<usize> {
        Some(self.slots.load(Relaxed)).filter(|slots| *slots != usize::MAX)
    }

    pub(in crate::upstream) fn set_slots(&self, slots: Option<usize>) {
        self.slots.store(slots.unwrap_or(usize::MAX), Relaxed);
    }

    /// Limit of connections to the address; `None` if [`Instance::slots`] is. It is higher than that if
    /// another upstream has a higher limit for the same address.
    pub fn connections(&self) -> Option<usize> {
        let own = self.slots()?;
        let seats = self.seats.load();
        Some(seats.as_ref().and_then(|seats| seats.limit()).map_or(own, |all| all.max(own)))
    }

    /// Returns true if the value changed.
    pub(in crate::upstream) fn set_seats(&self, seats: Option<Arc<SharedSlots>>) -> bool {
        let before = self.seats.load();
        let is_same = match (&*before, &seats) {
            (Some(before), Some(after)) => before.is_of(after),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            self.seats.store(seats);
        }
        !is_same
    }

    /// Hands free slots of this instance, and slots that they free in other upstreams with the same address,
    /// to waiting requests.
    pub(in crate::upstream) fn offer(self: &Arc<Self>) {
        match &*self.seats.load() {
            None => self.group.queue().serve(self),
            Some(seats) => seats.serve(),
        }
    }

    /// Requests in flight. Includes streams, upgraded connections and aborted requests that the instance
    /// still processes. Excludes health checks.
    pub fn in_flight(&self) -> usize {
        self.load.requests()
    }

    /// Requests and health checks in flight, which is the number of slots in use.
    pub fn load(&self) -> usize {
        self.load.all()
    }

    /// Total number of requests given to this instance.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Takes a slot. Returns false if none is free.
    pub(in crate::upstream) fn enter(&self, what: Work) -> bool {
        let slots = self.slots.load(Relaxed);
        let entered = if slots == usize::MAX {
            self.load.add(what);
            true
        } else if let Some(seats) = &*self.seats.load() {
            seats.enter(&self.load, what, slots)
        } else {
            self.load.add_below(slots, what)
        };
        self.requests.fetch_add(u64::from(entered && what == Work::Request), Relaxed);
        entered
    }

    /// Returns a slot.
    pub(in crate::upstream) fn leave(&self, what: Work) {
        self.load.remove(what);
    }

    pub(in crate::upstream) fn place(&self) -> usize {
        self.place.load(Relaxed) as usize
    }

    pub(in crate::upstream) fn set_place(&self, place: u32) {
        self.place.store(place, Relaxed);
    }
}
