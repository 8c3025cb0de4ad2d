//! Deadline of a draining instance.

use tokio::time::Instant;

/// When an instance goes down for good, and what happens to the responses that are still in flight on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub at: Instant,
    pub then: DeadlineAction,
}

/// What happens to responses and tunnels that are in flight when the deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineAction {
    /// They continue to their normal end.
    Keep,
    /// They are aborted.
    Close,
}

impl DeadlineAction {
    /// The word used in the API and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            DeadlineAction::Keep => "keep",
            DeadlineAction::Close => "close",
        }
    }
}

/// When the administrative state was set, and its deadline.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) since: Instant,
    pub(super) deadline: Option<Deadline>,
}
