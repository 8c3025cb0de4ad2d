//! Ending without cutting: stop new work, let running work end, give up at a deadline.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// One drain for a group of tasks; clones are handles to the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    /// The same as `begun`, cheap enough to be asked at every turn.
    flag: Arc<AtomicBool>,
    begun: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that the drain waits for. The task itself watches [`Drain::begun`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Tells every task to come to its end. Idempotent.
    pub fn begin(&self) {
        self.flag.store(true, Relaxed);
        self.begun.cancel();
        self.tasks.close();
    }

    pub fn has_begun(&self) -> bool {
        self.flag.load(Relaxed)
    }

    /// Completes once [`Drain::begin`] was called. Cancel-safe.
    pub fn begun(&self) -> WaitForCancellationFuture<'_> {
        self.begun.cancelled()
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
}
