//! What clients, applications and operators did, what came of it, and when: all that a verdict may know.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time since the beginning of a history.
pub(super) type Moment = Duration;
/// A session id or a user.
pub(super) type Name = Arc<str>;

/// What a request with a session was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    User(Name),
    /// Served as one who is not logged in.
    Nobody,
    /// The cookie was cleared, whatever else was said.
    CookieCleared,
    Refused,
}

/// What an application does to a session at the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    /// Creates it, or gives it another user.
    Set(Name),
    /// Ends it and lets another user in under the same id.
    Login(Name),
    End,
}

/// Whose sessions a revocation is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whom {
    Session(Name),
    User(Name),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Asked {
        vestibule: usize,
        session: Name,
        told: Told,
    },
    /// `is_acknowledged`: otherwise it may have happened or not, until the session is `Found`.
    Wrote {
        session: Name,
        write: Write,
        is_acknowledged: bool,
    },
    /// All sessions ended.
    Flushed,
    /// What the store has, after everything else that was sent to it.
    Found {
        session: Name,
        user: Option<Name>,
    },
    /// `status`: `None` when there was no answer.
    Revoked {
        whom: Whom,
        status: Option<u16>,
    },
    /// Something went wrong, of this kind.
    Fault(String),
    /// Another server took over, perhaps without all that was written.
    Failover,
    /// Nothing is wrong any more, and there was time to recover: from the end on nobody may be refused.
    Healed,
}

/// One thing that happened, from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) begun: Moment,
    pub(super) ended: Moment,
    pub(super) what: What,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (begun, ended) = (self.begun.as_secs_f64() * 1e3, self.ended.as_secs_f64() * 1e3);
        write!(f, "{begun:.1}-{ended:.1} ms {:?}", self.what)
    }
}

/// A history that is still going on; clones add to the same one.
#[derive(Debug, Clone)]
pub(super) struct Log {
    origin: Instant,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Log {
    pub(super) fn begin() -> Self {
        Self { origin: Instant::now(), events: Arc::default() }
    }

    pub(super) fn now(&self) -> Moment {
        self.origin.elapsed()
    }

    /// When this was.
    pub(super) fn at(&self, moment: Moment) -> Instant {
        self.origin + moment
    }

    /// Adds what has ended now.
    pub(super) fn add(&self, begun: Moment, what: What) {
        self.add_until(begun, self.now(), what);
    }

    /// Adds what counts from `ended` on.
    pub(super) fn add_until(&self, begun: Moment, ended: Moment, what: What) {
        self.events.lock().unwrap().push(Event { begun, ended, what });
    }

    /// All of it, by its beginning.
    pub(super) fn end(&self) -> Vec<Event> {
        let mut events = std::mem::take(&mut *self.events.lock().unwrap());
        events.sort_by_key(|event| event.begun);
        events
    }
}
