//! The modes that are compared.

use crate::config;

/// A way to keep sessions, as a comparison names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionMode {
    /// Each instance for itself, requests go in turn.
    Local,
    /// Each instance for itself, users keep their instance.
    Sticky,
    /// In the store, any instance serves.
    Shared,
    /// Shared, and every request asks the store.
    SharedUncached,
    /// Shared, and an answer waits until the session's renewal is written.
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

    /// The mode of that name.
    pub fn parse(name: &str) -> Option<SessionMode> {
        SessionMode::ALL.into_iter().find(|mode| mode.as_str() == name)
    }

    /// `session.mode` of the proxy.
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

    /// Whether it says nothing without a store in another process.
    pub fn needs_redis(self) -> bool {
        matches!(self, SessionMode::SharedUncached | SessionMode::SharedSynchronous)
    }
}
