//! Connections of one worker that wait for their next request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{ConnectError, Connection};

/// How long things may take on the way to an instance.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// To connect.
    pub connect: Duration,
    /// From the sent request to the head of the answer.
    pub first_byte: Duration,
    /// Between two bytes of an answer, those of a request that is still being sent included.
    pub idle: Duration,
    /// How long an unused connection is kept.
    pub keep_alive: Duration,
}

/// The idle connections of one worker to one address, the most recently used taken first, so that what
/// is not needed grows old.
#[derive(Debug)]
pub struct Pool {
    address: SocketAddr,
    settings: PoolSettings,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    fn new(address: SocketAddr, settings: PoolSettings) -> Self {
        Pool { address, settings, idle: Mutex::default() }
    }

    pub(super) fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// An idle connection, if there is one young enough. That the instance has closed it meanwhile is found
    /// when a request is sent, which is then handed back unsent.
    pub fn take(&self, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = idle.pop()?;
        if now.saturating_duration_since(connection.idle_since) < self.settings.keep_alive {
            return Some(connection);
        }
        // All the others have waited longer still.
        idle.clear();
        None
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        Connection::open(self.address, self.settings.connect).await
    }

    /// Takes back a connection whose exchange is over; one that is not fit for another is closed.
    pub(super) fn put(&self, mut connection: Connection) {
        if connection.rest() {
            connection.idle_since = Instant::now();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }

    /// Closes what has waited too long or was closed by the instance. True when something is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|connection| {
            now.saturating_duration_since(connection.idle_since) < self.settings.keep_alive
                && connection.rest()
        });
        idle.shrink_to(16);
        !idle.is_empty()
    }
}

/// One worker's pools, by address.
#[derive(Debug)]
pub struct Pools {
    settings: PoolSettings,
    pools: Mutex<BTreeMap<SocketAddr, Arc<Pool>>>,
}

impl Pools {
    pub fn new(settings: PoolSettings) -> Self {
        Pools { settings, pools: Mutex::default() }
    }

    /// The pool of connections to `address`.
    pub fn to(&self, address: SocketAddr) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry(address).or_insert_with(|| Arc::new(Pool::new(address, self.settings))).clone()
    }

    /// Closes old connections and forgets unused pools; to be called a few times a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // A pool that somebody holds will get a connection back.
        pools.retain(|_, pool| pool.sweep(now) || Arc::strong_count(pool) > 1);
    }
}
