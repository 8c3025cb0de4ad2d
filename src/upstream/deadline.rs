//! Until when an instance may end what it has begun.

use tokio::time::Instant;

/// When an instance goes down for good, and what becomes of what still runs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    pub at: Instant,
    pub then: DeadlineAction,
}

/// What becomes of answers and tunnels that are under way when a deadline passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineAction {
    /// They end as they would have.
    Keep,
    /// They are cut.
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

/// How an instance came to the state that it is in.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) since: Instant,
    pub(super) deadline: Option<Deadline>,
}
