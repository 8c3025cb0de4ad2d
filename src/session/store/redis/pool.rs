//! The connection pool of one worker for one server, and its slots for calls.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config;

use super::super::StoreError;
use super::fault_injector::GuardedConnection;
use super::link::Link;
use super::supervisor;
use super::topology::Primary;

/// Size and lifetime limits of a connection pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    min_idle: usize,
    max_idle: usize,
    max_connections: usize,
    pub(super) max_lifetime: Option<Duration>,
    /// Slots per connection: calls that may be in flight on it at once.
    in_flight: usize,
    /// Maximum time a call waits for a free slot.
    pub(super) wait_timeout: Duration,
}

impl Limits {
    pub(super) fn new(config: &config::Store) -> Self {
        Limits {
            min_idle: config.min_idle,
            max_idle: config.max_idle,
            max_connections: config.max_connections,
            max_lifetime: config.max_lifetime,
            in_flight: config.in_flight,
            wait_timeout: config.wait_timeout,
        }
    }
}

/// A connection pool. Its live connections are in the order in which they are filled: kept ones first, then
/// extra ones.
///
/// A call takes the first connection with a free slot, not the least loaded one. Calls on one connection
/// share its system calls, and extra connections become idle when they are not needed.
pub(super) struct Pool {
    pub(super) primary: Arc<Primary>,
    pub(super) limits: Limits,
    state: Mutex<State>,
    /// Notified once per freed slot; all waiters are notified when the set of connections changes.
    changed: Notify,
    stop: CancellationToken,
}

struct State {
    links: Vec<Arc<Link>>,
    /// Number of connections that are live or being opened, including extra ones that pause before they
    /// retire.
    supervised: usize,
    /// The error of the last attempt to open a connection, if it failed; cleared when one succeeds.
    failure: Option<StoreError>,
}

/// Whether a connection is permanent, or open only while the kept ones are full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Kept,
    Extra,
}

impl Pool {
    /// Creates the pool and starts the supervisors of the kept connections. Cancelling the token ends all
    /// supervisors.
    pub(super) fn start(primary: Arc<Primary>, limits: Limits) -> (Arc<Self>, CancellationToken) {
        let stop = CancellationToken::new();
        let links = Vec::with_capacity(limits.max_connections);
        let pool = Arc::new(Pool {
            primary,
            limits,
            state: Mutex::new(State { links, supervised: limits.min_idle, failure: None }),
            changed: Notify::new(),
            stop: stop.clone(),
        });
        for _ in 0..limits.min_idle {
            pool.supervise(Role::Kept);
        }
        (pool, stop)
    }

    fn supervise(self: &Arc<Self>, role: Role) {
        let (pool, stop) = (Arc::clone(self), self.stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(supervisor::run(&pool, role)).await;
        });
    }

    /// Acquires a slot on a connection; dropping the slot releases it. Waits at most `wait_timeout` for a
    /// free slot, then returns `Busy`. Fails at once while there is no connection.
    pub(super) async fn place(self: &Arc<Self>) -> Result<Slot<'_>, StoreError> {
        if let Some(place) = self.try_place()? {
            return Ok(place);
        }
        self.grow();
        tokio::time::timeout(self.limits.wait_timeout, self.wait_for_place())
            .await
            .unwrap_or(Err(StoreError::Busy))
    }

    async fn wait_for_place(&self) -> Result<Slot<'_>, StoreError> {
        loop {
            let changed = self.changed.notified();
            if let Some(place) = self.try_place()? {
                return Ok(place);
            }
            changed.await;
        }
    }

    fn try_place(&self) -> Result<Option<Slot<'_>>, StoreError> {
        let state = self.state();
        if state.links.is_empty() {
            return Err(state.failure.unwrap_or(StoreError::Disconnected));
        }
        let with_room =
            state.links.iter().find(|link| link.in_flight.load(Ordering::Relaxed) < self.limits.in_flight);
        Ok(with_room.map(|link| {
            link.in_flight.fetch_add(1, Ordering::Relaxed);
            link.used.store(true, Ordering::Relaxed);
            Slot { pool: self, link: Arc::clone(link) }
        }))
    }

    /// Opens an extra connection, unless one is being opened already or `max_connections` is reached.
    fn grow(self: &Arc<Self>) {
        let mut state = self.state();
        if state.supervised == state.links.len() && state.supervised < self.limits.max_connections {
            state.supervised += 1;
            drop(state);
            self.supervise(Role::Extra);
        }
    }

    /// Completes when there is a connection.
    pub(super) async fn connected(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.state().links.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Makes `link` available to calls. Kept connections go to the front, so they are filled first.
    pub(super) fn publish(&self, link: &Arc<Link>, role: Role) {
        let mut state = self.state();
        let at = match role {
            Role::Kept => 0,
            Role::Extra => state.links.len(),
        };
        state.links.insert(at, Arc::clone(link));
        state.failure = None;
        drop(state);
        self.changed.notify_waiters();
    }

    /// Removes `link` from the pool. Calls in flight on it complete.
    pub(super) fn withdraw(&self, link: &Arc<Link>) {
        self.state().links.retain(|other| !Arc::ptr_eq(other, link));
        self.changed.notify_waiters();
    }

    /// Records why a connection could not be opened. Calls fail with this error while there is no connection.
    pub(super) fn failed(&self, failure: StoreError) {
        // The caller did not wait for this connection to open, so `Timeout` would mislead it.
        let shown = if failure == StoreError::Timeout { StoreError::Disconnected } else { failure };
        self.state().failure = Some(shown);
    }

    /// Removes the idle connection `link`, unless it is among the `max_idle` connections to keep. Returns
    /// whether it was removed.
    pub(super) fn withdraw_idle(&self, link: &Arc<Link>) -> bool {
        let mut state = self.state();
        let is_wanted = state.links.len() <= self.limits.max_idle;
        if !is_wanted {
            state.links.retain(|other| !Arc::ptr_eq(other, link));
        }
        !is_wanted
    }

    /// Records that the supervisor of an extra connection has ended.
    pub(super) fn retired(&self) {
        self.state().supervised -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A poisoned lock is usable: no code that holds it can panic in the middle of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the `in_flight` slots of a connection.
pub(super) struct Slot<'a> {
    pool: &'a Pool,
    link: Arc<Link>,
}

impl Slot<'_> {
    pub(super) fn connection(&self) -> GuardedConnection {
        self.link.connection()
    }

    /// Applies `read` to the response. Reports an error to the supervisor of the connection.
    pub(super) fn checked<T>(
        &self,
        answer: Result<Value, RedisError>,
        read: impl FnOnce(Result<Value, RedisError>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        read(answer).inspect_err(|error| self.link.report(*error))
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.link.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.pool.changed.notify_one();
    }
}
