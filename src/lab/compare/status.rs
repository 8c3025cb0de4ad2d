//! Progress of a running comparison.

use std::time::Duration;

use tokio::time::Instant;

use crate::lab::load::Progress;

/// The current progress.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Completed runs.
    pub done: u32,
    /// All runs.
    pub runs: u32,
    /// From 1; 0: nothing runs yet.
    pub round: u32,
    pub rounds: u32,
    /// The mode of the current run.
    pub mode: &'static str,
    /// The current assumption, after the rounds.
    pub assumption: Option<String>,
    /// The current event.
    pub event: Option<String>,
    pub load: Progress,
    /// When the first run began.
    pub began: Option<Instant>,
    /// Duration of the completed runs, including their setup.
    pub spent: Duration,
}

impl Status {
    /// A run of `mode` begins, with a load of duration `length`.
    pub(super) fn begin(&mut self, mode: &'static str, length: Duration) {
        (self.mode, self.load) = (mode, Progress { total: length, ..Progress::default() });
    }

    /// The current run is complete.
    pub(super) fn end(&mut self) {
        self.done += 1;
        self.spent = self.began.map_or(self.spent, |began| began.elapsed());
    }

    /// The estimated remaining time, based on the completed runs.
    pub fn left(&self) -> Duration {
        /// Estimate for setup, idle measurement and teardown before the first run is complete.
        const STAGE: Duration = Duration::from_secs(4);
        let run = if self.done == 0 { self.load.total + STAGE } else { self.spent / self.done };
        let left = run * self.runs.saturating_sub(self.done);
        left.saturating_sub(self.load.elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_runs_so_far() {
        let seconds = Duration::from_secs;
        let load = Progress { elapsed: seconds(4), total: seconds(10), ..Progress::default() };
        let first = Status { runs: 3, load, ..Status::default() };
        assert_eq!(first.left(), seconds(38));
        let last = Status { done: 2, spent: seconds(30), ..first };
        assert_eq!(last.left(), seconds(11));
    }
}
