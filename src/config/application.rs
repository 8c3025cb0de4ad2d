//! The user's own application, as a target of a comparison. `config/applications/own.toml` documents every
//! key.

use std::net::SocketAddr;
use std::time::Duration;

use super::mode::Mode;

/// The application whose instances a comparison runs against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// Path and query of the health check; a healthy instance responds with a status of 200 to 399. `None`:
    /// accepting a connection is enough.
    pub health: Option<String>,
    /// Text of the proxy's `[session]` table for shared mode. `None`: the application manages its sessions
    /// itself, and the proxy resolves none.
    pub session: Option<String>,
    /// Text of keys and tables for the proxy's `[[upstream]]`. `None`: the defaults.
    pub upstream: Option<String>,
    /// Longest time from an instance's start until it is healthy; greater than zero.
    pub start_timeout: Duration,
    /// Environment variables of the start commands: mode, name, value. Mode `None`: in all modes.
    pub environment: Vec<(Option<Mode>, String, String)>,
    /// At least one; names and addresses are unique.
    pub instances: Vec<ApplicationInstance>,
}

impl Application {
    /// The default of `start_timeout`.
    pub const DEFAULT_START_TIMEOUT: Duration = Duration::from_secs(30);
}

/// One instance of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationInstance {
    pub name: String,
    pub address: SocketAddr,
    /// A shell command that runs the instance in the foreground. `None`: the instance is started externally.
    pub start: Option<String>,
    /// Whether the instance is added only by the scale-out event.
    pub later: bool,
}
