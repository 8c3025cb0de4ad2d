//! Connections of one worker that wait for their next request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::connection::{ConnectError, Connection};
use super::connection_limit::{AddressLimiter, ConnectionLimiter};

/// In their boxes, in which they go from request to request.
type Idle = Vec<Box<Connection>>;

/// How many connections to an instance there may be, and how long things may take on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// To connect.
    pub connect: Duration,
    /// From the sent request to the head of the answer.
    pub first_byte: Duration,
    /// Between two bytes of an answer, those of a request that is still being sent included.
    pub idle: Duration,
    /// How long an unused connection is kept.
    pub keep_alive: Duration,
    /// Age at which a connection is not used again; `None`: never for its age.
    pub max_lifetime: Option<Duration>,
    /// Requests after which a connection is not used again; `None`: never for their number.
    pub max_requests: Option<u32>,
    /// Most connections of all workers together; `None`: as many as are needed.
    pub limit: Option<usize>,
    /// Idle connections that are kept ready.
    pub warm: usize,
    /// How long an instance may be at work on a request that was given up, until it closes the connection or answers.
    pub abandoned: Duration,
    /// Most header lines of a response.
    pub header_count: usize,
    /// Most bytes of the head of a response.
    pub header_bytes: usize,
}

/// The idle connections of one worker to one address, the most recently used taken first, so that what
/// is not needed grows old.
#[derive(Debug)]
pub struct Pool {
    address: SocketAddr,
    settings: PoolSettings,
    lines: ConnectionLimiter,
    line: Arc<AddressLimiter>,
    idle: Mutex<Idle>,
}

impl Pool {
    fn new(address: SocketAddr, settings: PoolSettings, lines: &ConnectionLimiter) -> Arc<Self> {
        let line = lines.to(address);
        let lines = lines.clone();
        let pool = Arc::new(Pool { address, settings, lines, line, idle: Mutex::default() });
        pool.line.add(&pool);
        pool
    }

    pub(super) fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// An idle connection, if there is one young enough. That the instance has closed it meanwhile is found
    /// when a request is sent, which is then handed back unsent.
    pub fn take(&self, now: Instant) -> Option<Box<Connection>> {
        let mut idle = self.idle();
        let connection = idle.pop()?;
        if now.saturating_duration_since(connection.idle_since) < self.settings.keep_alive {
            return Some(connection);
        }
        // All the others have waited longer still.
        idle.clear();
        None
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Box<Connection>, ConnectError> {
        let PoolSettings { connect, limit, .. } = self.settings;
        let permit = match limit {
            None => self.line.acquire_uncounted(),
            Some(limit) => {
                timeout(connect, self.line.acquire(limit)).await.map_err(|_| ConnectError::Full)?
            }
        };
        let place = match self.lines.try_place() {
            Some(place) => place,
            None => timeout(connect, self.lines.place()).await.map_err(|_| ConnectError::TooMany)?,
        };
        Connection::open(self.address, &self.settings, permit.at(place)).await
    }

    /// Takes back a connection whose exchange is over; one that is not fit for another is closed.
    pub(super) fn put(&self, mut connection: Box<Connection>) {
        let now = Instant::now();
        connection.end();
        if self.is_worth_keeping(&connection, now) && connection.is_reusable() {
            connection.idle_since = now;
            self.idle().push(connection);
            if self.lines.are_full() {
                self.lines.notify_waiters();
            }
        }
    }

    /// Closes the connection that was used longest ago; false when none is idle.
    pub(super) fn close_one(&self) -> bool {
        let mut idle = self.idle();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some()
    }

    /// Opens a connection if fewer idle ones are ready than there should be.
    async fn warm(&self) {
        if self.idle().len() >= self.settings.warm {
            return;
        }
        let permit = match self.settings.limit {
            None => Some(self.line.acquire_uncounted()),
            Some(limit) => self.line.try_acquire(limit),
        };
        let (Some(permit), Some(place)) = (permit, self.lines.try_place()) else { return };
        // An instance that cannot be reached is found out by those who need it.
        if let Ok(connection) = Connection::open(self.address, &self.settings, permit.at(place)).await {
            self.idle().insert(0, connection);
            self.line.look_again();
            self.lines.notify_waiters();
        }
    }

    /// Closes what has waited too long or was closed by the instance. True when something is left.
    fn evict_idle(&self, now: Instant) -> bool {
        let mut idle = self.idle();
        idle.retain_mut(|connection| {
            now.saturating_duration_since(connection.idle_since) < self.settings.keep_alive
                && self.is_worth_keeping(connection, now)
                && connection.is_reusable()
        });
        idle.shrink_to(16);
        !idle.is_empty()
    }

    fn is_worth_keeping(&self, connection: &Connection, now: Instant) -> bool {
        let PoolSettings { max_lifetime, max_requests, .. } = self.settings;
        max_lifetime.is_none_or(|limit| now.saturating_duration_since(connection.opened) < limit)
            && max_requests.is_none_or(|limit| connection.requests < limit)
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's pools.
#[derive(Debug)]
pub struct Pools {
    lines: ConnectionLimiter,
    /// Most addresses have one; more while settings change, and where upstreams share an instance.
    pools: Mutex<BTreeMap<SocketAddr, Vec<Arc<Pool>>>>,
}

impl Pools {
    /// `lines` are those of the process.
    pub fn new(lines: ConnectionLimiter) -> Self {
        Pools { lines, pools: Mutex::default() }
    }

    /// The pool of connections to `address` that are kept as `settings` say.
    pub fn to(&self, address: SocketAddr, settings: &PoolSettings) -> Arc<Pool> {
        let mut pools = self.pools();
        let pools = pools.entry(address).or_default();
        if let Some(pool) = pools.iter().find(|pool| pool.settings == *settings) {
            return pool.clone();
        }
        let pool = Pool::new(address, *settings, &self.lines);
        pools.push(pool.clone());
        pool
    }

    /// Closes old connections and forgets unused pools; to be called a few times a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.pools().retain(|_, pools| {
            // A pool that somebody holds will get a connection back.
            pools.retain(|pool| pool.evict_idle(now) || Arc::strong_count(pool) > 1);
            !pools.is_empty()
        });
    }

    /// Sees to it that connections to `address` are ready before they are needed, if the settings want it; to be called
    /// a few times a second within the worker's runtime.
    pub fn keep_warm(&self, address: SocketAddr, settings: &PoolSettings) {
        if settings.warm > 0 {
            let pool = self.to(address, settings);
            tokio::spawn(async move { pool.warm().await });
        }
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Vec<Arc<Pool>>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
