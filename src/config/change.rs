//! How a running process changes: reload and upgrade.

use std::ops::Deref;
use std::time::Duration;

use regex::Regex;

/// When the configuration is reloaded, and what happens to removed instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// Whether a change of the file triggers a reload, in addition to explicit requests.
    pub watch: bool,
    pub removed_streams: RemovedStreams,
}

/// What happens to responses and tunnels from an instance that a reload removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedStreams {
    /// They continue until they end by themselves.
    Keep,
    /// They continue for at most this long.
    KeepUntil(Duration),
    /// They are cut.
    Close,
}

/// How a new process takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// Timeout of each step of the new process until it is ready.
    pub timeout: Duration,
    /// Maximum lifetime of the old process after the takeover.
    pub max_age: Duration,
    /// Maximum resident memory of the old process after the takeover, in bytes.
    pub max_memory: u64,
}

/// A regular expression. Two are equal when their texts are equal.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl From<Regex> for Pattern {
    fn from(regex: Regex) -> Self {
        Pattern(regex)
    }
}

impl Deref for Pattern {
    type Target = Regex;

    fn deref(&self) -> &Regex {
        &self.0
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
