//! The connection pools of one worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::connection::{ConnectError, Connection};
use super::connection_limit::{AddressLimiter, ConnectionLimiter};

/// Boxed, as connections are moved from request to request.
type Idle = Vec<Box<Connection>>;

/// Limits and timeouts of the connections to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connect timeout.
    pub connect: Duration,
    /// Timeout from the sent request to the response head.
    pub first_byte: Duration,
    /// Timeout between two bytes of a response. Bytes of a request that is still being sent count too.
    pub idle: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Age after which a connection is not reused; `None`: unlimited.
    pub max_lifetime: Option<Duration>,
    /// Number of requests after which a connection is not reused; `None`: unlimited.
    pub max_requests: Option<u32>,
    /// Limit of connections of all workers together; `None`: unlimited.
    pub limit: Option<usize>,
    /// Number of idle connections that are kept ready.
    pub warm: usize,
    /// How long an instance is assumed at most to process an aborted request. The time ends early if it
    /// closes the connection or responds.
    pub abandoned: Duration,
    /// Limit of header lines in a response.
    pub header_count: usize,
    /// Limit of bytes in a response head.
    pub header_bytes: usize,
}

/// The idle connections of one worker to one address. The most recently used one is taken first, so that
/// connections that are not needed age and are closed.
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

    /// Takes the most recently used idle connection; `None` if there is none younger than `keep_alive`.
    /// Whether the instance has closed it meanwhile is not checked: the request would then be handed back
    /// unsent.
    pub fn take(&self, now: Instant) -> Option<Box<Connection>> {
        let mut idle = self.idle();
        let connection = idle.pop()?;
        if now.saturating_duration_since(connection.idle_since) < self.settings.keep_alive {
            return Some(connection);
        }
        // The connections are ordered by idle time, so all others are too old as well.
        idle.clear();
        None
    }

    /// Opens a new connection.
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

    /// Returns a connection after its exchange. It is closed if it cannot be reused.
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

    /// Closes the idle connection that was used longest ago. Returns false if there is none.
    pub(super) fn close_one(&self) -> bool {
        let mut idle = self.idle();
        let oldest = (!idle.is_empty()).then(|| idle.remove(0));
        drop(idle);
        oldest.is_some()
    }

    /// Opens a connection if fewer than the configured number of idle ones are ready.
    async fn warm(&self) {
        if self.idle().len() >= self.settings.warm {
            return;
        }
        let permit = match self.settings.limit {
            None => Some(self.line.acquire_uncounted()),
            Some(limit) => self.line.try_acquire(limit),
        };
        let (Some(permit), Some(place)) = (permit, self.lines.try_place()) else { return };
        // Errors are ignored here: the next request that has to connect reports them.
        if let Ok(connection) = Connection::open(self.address, &self.settings, permit.at(place)).await {
            self.idle().insert(0, connection);
            self.line.look_again();
            self.lines.notify_waiters();
        }
    }

    /// Closes connections that are too old or were closed by the instance. Returns true if any are left.
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

/// The pools of one worker.
#[derive(Debug)]
pub struct Pools {
    lines: ConnectionLimiter,
    /// Usually one pool per address. There are more while settings change, and if upstreams share an
    /// instance.
    pools: Mutex<BTreeMap<SocketAddr, Vec<Arc<Pool>>>>,
}

impl Pools {
    /// `lines` are the connection limits of the process.
    pub fn new(lines: ConnectionLimiter) -> Self {
        Pools { lines, pools: Mutex::default() }
    }

    /// The pool of connections to `address` with these settings. It is created if there is none.
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

    /// Closes old connections and removes unused pools. To be called a few times per second.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.pools().retain(|_, pools| {
            // A pool that is referenced elsewhere will get a connection back.
            pools.retain(|pool| pool.evict_idle(now) || Arc::strong_count(pool) > 1);
            !pools.is_empty()
        });
    }

    /// Opens connections to `address` in advance, if the settings require it. To be called a few times per
    /// second within the worker's runtime.
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
