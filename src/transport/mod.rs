//! Connections to instances: opened, kept for reuse, watched.

mod connection;
mod connection_limit;
mod head_lines;
mod lingering_close;
mod pool;
mod response_body;
mod slot_hold;
mod tunnel;
mod upload;

#[cfg(test)]
pub(crate) use connection::MalformedHead;
pub use connection::{ConnectError, Connection, SendError, is_exhaustion};
pub use connection_limit::{ConnectionLimiter, ConnectionPermit};
pub use pool::{Pool, PoolSettings, Pools};
pub use response_body::{UpstreamBody, UpstreamBodyError};
pub use slot_hold::SlotShare;
pub use tunnel::{Tunnel, TunnelReport};

/// Chooses the cryptography behind every TLS connection of the process. Idempotent.
pub fn install_crypto() {
    // A provider that is installed already is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
