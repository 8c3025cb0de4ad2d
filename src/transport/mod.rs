//! Connections to instances: opened, kept for reuse, watched.

mod answer;
mod connection;
mod head_lines;
mod leave;
mod line;
mod link;
mod pool;
mod tunnel;
mod upload;

pub use answer::{UpstreamBody, UpstreamBodyError};
#[cfg(test)]
pub(crate) use connection::MalformedHead;
pub use connection::{ConnectError, Connection, SendError, is_exhaustion};
pub use line::{Lines, Permit};
pub use link::Claim;
pub use pool::{Pool, PoolSettings, Pools};
pub use tunnel::{Tunnel, TunnelReport};

/// Chooses the cryptography behind every TLS connection of the process. Idempotent.
pub fn install_crypto() {
    // A provider that is installed already is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
