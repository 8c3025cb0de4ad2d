//! The connections of one worker to one server, and the places on them.

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

/// How many connections a pool has, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    min_idle: usize,
    max_idle: usize,
    max_connections: usize,
    pub(super) max_lifetime: Option<Duration>,
    in_flight: usize,
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

/// Live connections in the order in which they are filled: the kept ones, then extra ones.
///
/// A call takes the first connection with room rather than the least loaded: calls that share a
/// connection share its system calls, and extra connections fall idle when they are not needed.
pub(super) struct Pool {
    pub(super) primary: Arc<Primary>,
    pub(super) limits: Limits,
    state: Mutex<State>,
    /// Notified once per freed place, and to all when the set of connections changes.
    changed: Notify,
    stop: CancellationToken,
}

struct State {
    links: Vec<Arc<Link>>,
    /// Connections that are live or being opened.
    supervised: usize,
    /// Why no connection could be opened since the last one was.
    failure: Option<StoreError>,
}

/// Whether a connection is always there or only while the kept ones are full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Kept,
    Extra,
}

impl Pool {
    /// Starts the supervisors of the kept connections; cancelling the token ends all of them.
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

    /// A place on a connection, given back on drop. Waits at most `wait_timeout`, and not at all
    /// while there is no connection.
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

    /// Opens one more connection, unless one is being opened already or there are enough.
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

    /// Lets calls use `link`.
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

    /// Lets no further call use `link`; those under way end by themselves.
    pub(super) fn withdraw(&self, link: &Arc<Link>) {
        self.state().links.retain(|other| !Arc::ptr_eq(other, link));
        self.changed.notify_waiters();
    }

    /// Notes why a connection could not be opened.
    pub(super) fn failed(&self, failure: StoreError) {
        // To a caller, who did not wait, a connection that took too long to open is just not there.
        let shown = if failure == StoreError::Timeout { StoreError::Disconnected } else { failure };
        self.state().failure = Some(shown);
    }

    /// Likewise, for one that nobody uses, unless it is one of those to be kept nevertheless; whether it was done.
    pub(super) fn withdraw_idle(&self, link: &Arc<Link>) -> bool {
        let mut state = self.state();
        let is_wanted = state.links.len() <= self.limits.max_idle;
        if !is_wanted {
            state.links.retain(|other| !Arc::ptr_eq(other, link));
        }
        !is_wanted
    }

    /// Notes that an extra connection's supervisor has ended.
    pub(super) fn retired(&self) {
        self.state().supervised -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the `in_flight` places on a connection.
pub(super) struct Slot<'a> {
    pool: &'a Pool,
    link: Arc<Link>,
}

impl Slot<'_> {
    pub(super) fn connection(&self) -> GuardedConnection {
        self.link.connection()
    }

    /// What `read` makes of the answer; tells the supervisor if it speaks against the connection.
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
