//! The operator's settings of an instance, and the requests it takes according to them.

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
    /// The administrative state.
    pub fn state(&self) -> InstanceState {
        match self.state.load(Relaxed) {
            READY => InstanceState::Ready,
            DRAIN => InstanceState::Drain,
            _ => InstanceState::Down,
        }
    }

    /// When the instance began to take sessions although other instances already served, or was set to
    /// `Ready` again by the operator (Unix seconds). 0 = it has served since the start of the process.
    pub fn joined(&self) -> u64 {
        self.joined.load(Relaxed)
    }

    /// When the administrative state last changed.
    pub fn state_since(&self) -> Instant {
        self.orders().since
    }

    /// When the instance goes down for good, if a deadline is set.
    pub fn deadline(&self) -> Option<Deadline> {
        self.orders().deadline
    }

    /// Stores the deadline. The caller must apply it when it passes.
    pub fn set_deadline(&self, deadline: Option<Deadline>) {
        self.orders().deadline = deadline;
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the administrative state and clears the deadline. The balancer must then be refreshed.
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

    /// Whether fault injection treats the instance as dead.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Relaxed)
    }

    /// Starts or ends fault injection. The balancer must then be refreshed. Responses that were aborted
    /// meanwhile stay aborted; responses that begin afterwards are not aborted.
    pub fn set_fenced(&self, fenced: bool) {
        self.fenced.store(fenced, Relaxed);
        if !fenced && self.state.load(Relaxed) != TAKEN_OUT {
            self.streams.reopen();
        }
    }

    /// Weight, 0 to 1000. A weight of 0 has the same effect as [`InstanceState::Drain`].
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Sets the weight. The balancer must then be refreshed.
    pub fn set_weight(&self, weight: u32) {
        if self.weight.swap(weight, Relaxed) == 0 && weight > 0 {
            self.doubt(UnprovenReason::Away);
        }
    }

    /// Whether the operator's settings permit new requests.
    pub fn is_in_use(&self) -> bool {
        self.state() == InstanceState::Ready && self.weight() > 0
    }

    /// Whether the instance serves requests with affinity to it. A missing health check does not move sticky
    /// sessions, except after a refused connect: then the sessions in the instance's memory are lost.
    pub fn keeps_ties(&self) -> bool {
        let is_in = self.state.load(Relaxed) != TAKEN_OUT;
        self.is_open() || (is_in && self.is_fit() && self.doubts() != Some(UnprovenReason::Gone))
    }

    /// Whether the instance takes requests that a hash maps to it. Before the first health check has finished
    /// after the start, they are not mapped elsewhere, because the hash may stand for an existing session.
    pub fn takes_led(&self) -> bool {
        self.is_open()
            || (self.doubts() == Some(UnprovenReason::Unknown) && self.is_in_use() && self.is_fit())
    }
}
