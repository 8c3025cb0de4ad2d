//! Ending without cutting: stop new work, let running work end, give up at a deadline.
//!
//! A drain that another process takes over from begins with *retiring*: nothing is hurried then, because
//! whoever comes anew is served elsewhere.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// One drain for a group of tasks; clones are handles to the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    flags: Arc<Flags>,
    retired: CancellationToken,
    begun: CancellationToken,
    tasks: TaskTracker,
}

/// The same as the tokens, cheap enough to be asked at every turn.
#[derive(Debug, Default)]
struct Flags {
    retired: AtomicBool,
    begun: AtomicBool,
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that the drain waits for. The task itself watches [`Drain::begun`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Tells every task to take on nothing new and to end in its own time. Idempotent.
    pub fn retire(&self) {
        self.flags.retired.store(true, Relaxed);
        self.retired.cancel();
        self.tasks.close();
    }

    /// Tells every task to come to its end; retires it as well. Idempotent.
    pub fn begin(&self) {
        self.flags.begun.store(true, Relaxed);
        self.begun.cancel();
        self.retire();
    }

    /// Whether [`Drain::retire`] or [`Drain::begin`] was called.
    pub fn is_retired(&self) -> bool {
        self.flags.retired.load(Relaxed)
    }

    pub fn has_begun(&self) -> bool {
        self.flags.begun.load(Relaxed)
    }

    /// Completes once [`Drain::retire`] or [`Drain::begin`] was called. Cancel-safe.
    pub fn retired(&self) -> WaitForCancellationFuture<'_> {
        self.retired.cancelled()
    }

    /// Completes once [`Drain::begin`] was called. Cancel-safe.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.begun.cancelled()
    }

    /// Completes when every task has ended, once the drain is retired. Cancel-safe.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }

    /// Waits until every task has ended or `deadline` has passed; returns how many still ran. The caller
    /// must have begun the drain.
    pub async fn finished(&self, deadline: Duration) -> usize {
        match tokio::time::timeout(deadline, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tasks.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn running_tasks_are_waited_for_and_late_ones_are_counted() {
        let drain = Drain::new();
        for seconds in [1, 2, 60] {
            drain.spawn(tokio::time::sleep(Duration::from_secs(seconds)));
        }
        let waiting = drain.clone();
        drain.spawn(async move { waiting.begun().await });
        drain.begin();
        assert!(drain.has_begun());
        assert_eq!(drain.finished(Duration::from_secs(5)).await, 1);
        assert_eq!(drain.finished(Duration::from_secs(120)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_retired_take_their_time_and_may_be_hurried_later() {
        let drain = Drain::new();
        let waiting = drain.clone();
        drain.spawn(async move { waiting.begun().await });
        drain.retire();
        drain.retired().await;
        assert!(drain.is_retired() && !drain.has_begun());
        assert!(tokio::time::timeout(Duration::from_secs(60), drain.ended()).await.is_err());
        drain.begin();
        drain.ended().await;
    }
}
