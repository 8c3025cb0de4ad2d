//! Fatal errors of the proxy.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::handover::HandoverError;
use crate::secret::RandomError;

/// Why the proxy cannot start or cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot listen on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// Socket activation passed a socket that no listener of the configuration uses.
    #[error(
        "the service manager hands over a socket for {0}, which is the address of no [[listener]] and not that of \
         [admin]: its clients would wait for ever; name it there, or take it out of the .socket unit"
    )]
    Unasked(SocketAddr),
    #[error("cannot use the sockets of the process before")]
    Handover(#[from] HandoverError),
    #[error("cannot write the access log to {path}")]
    AccessLog {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the system gives no thread or runtime")]
    Thread(#[source] io::Error),
    #[error("a worker ended before its time")]
    WorkerLost,
}
