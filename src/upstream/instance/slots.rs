//! What is under way on an instance, and how much more may be.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Instance;
use crate::upstream::load::Work;
use crate::upstream::shared_slots::SharedSlots;

impl Instance {
    /// Most requests at a time.
    pub fn slots(&self) -> Option<usize> {
        Some(self.slots.load(Relaxed)).filter(|slots| *slots != usize::MAX)
    }

    pub(in crate::upstream) fn set_slots(&self, slots: Option<usize>) {
        self.slots.store(slots.unwrap_or(usize::MAX), Relaxed);
    }

    /// Most connections to its address; more than [`Instance::slots`] where other upstreams have more.
    pub fn connections(&self) -> Option<usize> {
        let own = self.slots()?;
        let seats = self.seats.load();
        Some(seats.as_ref().and_then(|seats| seats.limit()).map_or(own, |all| all.max(own)))
    }

    /// True when that is a change.
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

    /// Hands its free slots, and what they make room for in other upstreams, to those who wait for them.
    pub(in crate::upstream) fn offer(self: &Arc<Self>) {
        match &*self.seats.load() {
            None => self.group.queue().serve(self),
            Some(seats) => seats.serve(),
        }
    }

    /// Requests under way: streams, upgraded connections and those that were given up but are worked on included, and
    /// no checks.
    pub fn in_flight(&self) -> usize {
        self.load.requests()
    }

    /// Requests and checks under way: what it has to do, and the slots that are taken.
    pub fn load(&self) -> usize {
        self.load.all()
    }

    /// Requests ever given to this instance.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Takes a slot; false when all are taken.
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

    /// Gives a slot back.
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
