//! How a running process changes.

use std::ops::Deref;
use std::time::Duration;

use regex::Regex;

/// When the configuration is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// Also when the file has changed, not only when told to.
    pub watch: bool,
    pub removed_streams: RemovedStreams,
}

/// What becomes of answers and tunnels that still come from an instance that a reload removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedStreams {
    /// They end by themselves.
    Keep,
    /// They have so long.
    KeepUntil(Duration),
    /// They are cut.
    Close,
}

/// How a new process takes over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// For each step of the new process until it is ready.
    pub timeout: Duration,
    /// Longest life of the old process after it was taken over from.
    pub max_age: Duration,
    /// Bytes of resident memory that the old process may have meanwhile.
    pub max_memory: u64,
}

/// A regular expression that is equal to another one written the same.
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
