//! Errors of the stage.

use std::io;
use std::time::Duration;

use http::StatusCode;

use crate::config::Problems;
use crate::secret::RandomError;

/// Why a stage cannot be set up, or what failed on it.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("cannot use the temporary directory")]
    Directory(#[source] io::Error),
    #[error("cannot start {name}")]
    Start { name: String, source: io::Error },
    #[error("{name} has ended; the last it said:{output}")]
    Ended { name: String, output: String },
    #[error("{name} is not ready after {} s; the last it said:{output}", waited.as_secs())]
    Silent { name: String, output: String, waited: Duration },
    #[error("{name} does not answer at its address: start it, or give its `start` command")]
    Absent { name: String },
    /// The proxy's configuration, part of which is the user's.
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Random(#[from] RandomError),
    #[error("the proxy's admin API does not answer")]
    Admin(#[source] io::Error),
    #[error("the proxy's admin API refuses with {0}: {1}")]
    Refused(StatusCode, String),
    #[error(
        "the proxy does not find {what} ready to serve within {} s: where your own instances need longer, say so \
         with `start_timeout`", waited.as_secs()
    )]
    NotServing { what: String, waited: Duration },
    #[error("the session store does not answer")]
    Store(#[source] io::Error),
    #[error("the session store has no new primary within 30 s")]
    NoFailover,
}
