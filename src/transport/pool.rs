//! Connections of one worker that wait for their next request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{ConnectError, Connection, Home};

/// Connections are interchangeable when they lead to the same address.
pub(super) type PoolKey = SocketAddr;

/// How long things may take on the way to an instance.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// To connect.
    pub connect: Duration,
    /// Between two bytes of an answer.
    pub idle: Duration,
    /// How long an unused connection is kept.
    pub keep_alive: Duration,
}

/// The idle connections of one worker, most recently used first, so that what is not needed grows old.
#[derive(Debug)]
pub struct Pool {
    settings: PoolSettings,
    idle: Mutex<HashMap<PoolKey, Vec<Connection>>>,
}

impl Pool {
    pub fn new(settings: PoolSettings) -> Arc<Self> {
        Arc::new(Pool { settings, idle: Mutex::default() })
    }

    pub(super) fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// Where a connection to `address` returns to.
    pub fn home(self: &Arc<Self>, address: SocketAddr) -> Home {
        Home { pool: self.clone(), key: address }
    }

    /// An idle connection to `address`, if one is fit for use.
    pub fn take(&self, address: SocketAddr, now: Instant) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.get_mut(&address)?;
        while let Some(connection) = waiting.pop() {
            if now.saturating_duration_since(connection.idle_since) >= self.settings.keep_alive {
                // All the others have waited longer still.
                waiting.clear();
            } else if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// A new connection to `address`.
    pub async fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        Connection::open(address, self.settings.connect).await
    }

    pub(super) fn put(&self, key: PoolKey, mut connection: Connection) {
        if connection.is_closed() {
            return;
        }
        connection.idle_since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.entry(key).or_default().push(connection);
    }

    /// Closes what has waited too long or was closed by the other side; to be called about once a second.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, waiting| {
            waiting.retain(|connection| {
                !connection.is_closed()
                    && now.saturating_duration_since(connection.idle_since) < self.settings.keep_alive
            });
            waiting.shrink_to(16);
            !waiting.is_empty()
        });
    }
}
