//! What the operator wants of an instance, and whom it serves by that.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Instance;
use crate::clock::unix_seconds;
use crate::config::InstanceState;
use crate::upstream::deadline::{Deadline, Orders};
use crate::upstream::fresh_check::UnprovenReason;

pub(super) const READY: u8 = 0;
const DRAIN: u8 = 1;
const TAKEN_OUT: u8 = 2;

impl Instance {
    /// What the operator wants.
    pub fn state(&self) -> InstanceState {
        match self.state.load(Relaxed) {
            READY => InstanceState::Ready,
            DRAIN => InstanceState::Drain,
            _ => InstanceState::Down,
        }
    }

    /// When it began to take sessions while others did so already, or did so again by the operator's wish (Unix
    /// seconds); 0: it was there from the beginning.
    pub fn joined(&self) -> u64 {
        self.joined.load(Relaxed)
    }

    /// Since when.
    pub fn state_since(&self) -> Instant {
        self.orders().since
    }

    /// When it goes down for good, if that is decided.
    pub fn deadline(&self) -> Option<Deadline> {
        self.orders().deadline
    }

    /// Only notes the deadline; whoever sets it sees to it.
    pub fn set_deadline(&self, deadline: Option<Deadline>) {
        self.orders().deadline = deadline;
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back a deadline, too. The balancer must be told.
    pub fn set_state(&self, state: InstanceState) {
        if state == InstanceState::Ready && self.state() != InstanceState::Ready {
            self.joined.store(unix_seconds(), Relaxed);
            self.doubt(UnprovenReason::Away);
        }
        let state = match state {
            InstanceState::Ready => READY,
            InstanceState::Drain => DRAIN,
            InstanceState::Down => TAKEN_OUT,
        };
        let mut orders = self.orders();
        orders.deadline = None;
        if self.state.swap(state, Relaxed) != state {
            orders.since = Instant::now();
        }
        drop(orders);
        if state != TAKEN_OUT {
            self.streams.reopen();
        }
    }

    /// Whether it is treated as if it were dead, for a rehearsal.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Relaxed)
    }

    /// The balancer must be told. Answers that were cut meanwhile stay so; later ones go on again.
    pub fn set_fenced(&self, fenced: bool) {
        self.fenced.store(fenced, Relaxed);
        if !fenced && self.state.load(Relaxed) != TAKEN_OUT {
            self.streams.reopen();
        }
    }

    /// Its share of requests, 0 to 1000; 0 is as good as [`InstanceState::Drain`].
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// The balancer must be told.
    pub fn set_weight(&self, weight: u32) {
        if self.weight.swap(weight, Relaxed) == 0 && weight > 0 {
            self.doubt(UnprovenReason::Away);
        }
    }

    /// Whether it would get new requests if it is fit to serve.
    pub fn is_in_use(&self) -> bool {
        self.state() == InstanceState::Ready && self.weight() > 0
    }

    /// Whether it serves those who are tied to it. Doubt does not move them, unless what it kept of them is gone.
    pub fn keeps_ties(&self) -> bool {
        let is_in = self.state.load(Relaxed) != TAKEN_OUT;
        self.is_open() || (is_in && self.is_fit() && self.doubts() != Some(UnprovenReason::Gone))
    }

    /// Whether it takes requests that a hash leads to it. As long as nothing else is known they are not led elsewhere,
    /// as that may be a tie.
    pub fn takes_led(&self) -> bool {
        self.is_open()
            || (self.doubts() == Some(UnprovenReason::Unknown) && self.is_in_use() && self.is_fit())
    }
}
