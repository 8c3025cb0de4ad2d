//! Connections to instances: connecting, pooling, limits, and the transfer of requests and responses.

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

/// Installs the process-wide TLS crypto provider. Idempotent.
pub fn install_crypto() {
    // It fails if a provider is installed already, which is equally good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
