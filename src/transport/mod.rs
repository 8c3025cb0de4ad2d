//! Connections to instances: opened, kept for reuse, watched.

mod connection;
mod pool;
mod tunnel;

pub use connection::{ConnectError, Connection, Home, SendError, UpstreamBody, UpstreamBodyError};
pub use pool::{Pool, PoolSettings};
pub use tunnel::{Tunnel, TunnelReport};
