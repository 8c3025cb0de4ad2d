//! The user's own application, as a comparison is told of it. Every key is in
//! `config/applications/own.toml`.

use std::net::SocketAddr;
use std::time::Duration;

use super::mode::Mode;

/// The application whose instances are compared on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Path and query that a healthy instance answers with 200 to 399; `None`: taking a connection is enough.
    pub health: Option<String>,
    /// Text of a table `[session]` of the proxy for shared sessions; `None`: the application keeps them itself, and the
    /// proxy looks at none.
    pub session: Option<String>,
    /// Text of keys and tables of the proxy's `[[upstream]]`; `None`: the defaults.
    pub upstream: Option<String>,
    /// Longest time that an instance gets from its start until it serves; greater than zero.
    pub start_timeout: Duration,
    /// What the start commands find in their environment, by mode; `None`: in all.
    pub environment: Vec<(Option<Mode>, String, String)>,
    /// At least one; names and addresses are unique.
    pub instances: Vec<ApplicationInstance>,
}

impl Application {
    /// `start_timeout` when nothing else is said.
    pub const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(30);
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationInstance {
    pub name: String,
    pub address: SocketAddr,
    /// A shell command that runs it in the foreground; `None`: somebody else has started it.
    pub start: Option<String>,
    /// Whether it comes with the scale-out only.
    pub later: bool,
}
