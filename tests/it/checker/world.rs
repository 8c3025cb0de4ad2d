//! What clients, applications, operators and the nemesis of a run share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::RwLock;

use super::history::{Log, Name};
use super::plan::Plan;

/// Vestibules of a run.
pub(super) const VESTIBULES: usize = 2;
/// Applications, each with sessions of its own.
pub(super) const LANES: usize = 3;

/// The server whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Truth {
    pub(super) address: SocketAddr,
    /// When it changes, all sessions are to be read again.
    pub(super) edition: usize,
}

/// Where a vestibule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
}

/// The sessions of an application, as its clients use them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) live: Vec<Name>,
    /// Ended not long ago.
    pub(super) ended: Vec<Name>,
    pub(super) revoked: Vec<Name>,
    /// Those that are just changing.
    pub(super) changing: Vec<Name>,
    /// Those of a crowd that has just come.
    pub(super) crowd: Vec<Name>,
}

pub(super) struct World {
    pub(super) log: Log,
    /// Whether a use lengthens the life of a session.
    pub(super) renews: bool,
    /// What a session has to live to begin with: so little that its first use lengthens it where uses do.
    pub(super) life: Duration,
    /// Whether all sessions of a user are revoked now and then.
    pub(super) locks_out: bool,
    truth: Mutex<Truth>,
    seats: [Mutex<Seat>; VESTIBULES],
    /// Held by an application while it changes something, and by a nemesis while nobody may.
    pub(super) gate: RwLock<()>,
    pub(super) lanes: [Mutex<Sessions>; LANES],
    is_hushed: AtomicBool,
    is_over: AtomicBool,
}

impl World {
    pub(super) fn new(primary: SocketAddr, seats: [Seat; VESTIBULES], plan: &Plan) -> Arc<Self> {
        Arc::new(Self {
            log: Log::begin(),
            renews: plan.idle.is_some(),
            life: Duration::from_secs(plan.idle.unwrap_or(3_600)).mul_f64(0.85),
            locks_out: plan.locks_out,
            truth: Mutex::new(Truth { address: primary, edition: 0 }),
            seats: seats.map(Mutex::new),
            gate: RwLock::new(()),
            lanes: Default::default(),
            is_hushed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        })
    }

    pub(super) fn truth(&self) -> Truth {
        *self.truth.lock().unwrap()
    }

    /// Lets the word of another server count, or of the same that may have changed its mind.
    pub(super) fn trust(&self, address: SocketAddr) {
        let mut truth = self.truth.lock().unwrap();
        *truth = Truth { address, edition: truth.edition + 1 };
    }

    pub(super) fn seat(&self, vestibule: usize) -> Seat {
        *self.seats[vestibule].lock().unwrap()
    }

    pub(super) fn move_to(&self, vestibule: usize, seat: Seat) {
        *self.seats[vestibule].lock().unwrap() = seat;
    }

    /// Nobody asks or changes anything while it is so.
    pub(super) fn hush(&self, is_hushed: bool) {
        self.is_hushed.store(is_hushed, Ordering::Relaxed);
    }

    pub(super) fn is_hushed(&self) -> bool {
        self.is_hushed.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }
}
