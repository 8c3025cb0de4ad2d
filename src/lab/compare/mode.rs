//! The modes that are compared.

use crate::config;

/// A session mode in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionMode {
    /// Each instance keeps its own sessions; requests are balanced by round robin.
    Local,
    /// Each instance keeps its own sessions; users stay with their instance.
    Sticky,
    /// Sessions are in the store; any instance serves.
    Shared,
    /// Shared without the session cache: every request queries the store.
    SharedUncached,
    /// Shared with synchronous renewal: a response waits until the session's renewal is written.
    SharedSynchronous,
}

impl SessionMode {
    pub const ALL: [SessionMode; 5] = [
        SessionMode::Local,
        SessionMode::Sticky,
        SessionMode::Shared,
        SessionMode::SharedUncached,
        SessionMode::SharedSynchronous,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            SessionMode::Local => "local",
            SessionMode::Sticky => "sticky",
            SessionMode::Shared => "shared",
            SessionMode::SharedUncached => "shared-uncached",
            SessionMode::SharedSynchronous => "shared-synchronous",
        }
    }

    /// Parses the name of a mode.
    pub fn parse(name: &str) -> Option<SessionMode> {
        SessionMode::ALL.into_iter().find(|mode| mode.as_str() == name)
    }

    /// The proxy's `session.mode`.
    pub fn of_proxy(self) -> config::Mode {
        match self {
            SessionMode::Local => config::Mode::Local,
            SessionMode::Sticky => config::Mode::Sticky,
            SessionMode::Shared | SessionMode::SharedUncached | SessionMode::SharedSynchronous => {
                config::Mode::Shared
            }
        }
    }

    pub fn is_shared(self) -> bool {
        self.of_proxy() == config::Mode::Shared
    }

    /// Whether the mode is meaningful only with a store in another process.
    pub fn needs_redis(self) -> bool {
        matches!(self, SessionMode::SharedUncached | SessionMode::SharedSynchronous)
    }
}
