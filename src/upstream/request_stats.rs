//! Outcomes of the requests to one instance, for outlier detection. Recording is a few relaxed atomics.

use std::fmt;
use std::sync::atomic::{
    AtomicBool, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Outlier;

/// The outcome of a request as far as it is evidence about the instance. Not recorded are responses that are
/// the application's own affair, and errors of the client or of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The head of a response has just arrived. The value is when the wait for it began. The body may still
    /// be truncated.
    Answered(Instant),
    /// The response is complete.
    Completed,
    Failed(Failure),
}

/// How the instance failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// No response head within the timeout.
    TimedOut,
    /// The connection broke before the response head, or the bytes received are no valid response.
    Broken,
    /// The response was truncated after its head.
    Cut,
    /// A status that is about the instance rather than the request: 500, 502, 503 or 504.
    Status(u16),
}

/// Codes of failures without a status. They are below 100, so they never equal a status.
const CONNECT: u16 = 1;
const TIMED_OUT: u16 = 2;
const BROKEN: u16 = 3;
const CUT: u16 = 4;

impl Failure {
    fn code(self) -> u16 {
        match self {
            Failure::Connect => CONNECT,
            Failure::TimedOut => TIMED_OUT,
            Failure::Broken => BROKEN,
            Failure::Cut => CUT,
            Failure::Status(status) => status,
        }
    }

    fn from_code(code: u16) -> Self {
        match code {
            CONNECT => Failure::Connect,
            TIMED_OUT => Failure::TimedOut,
            BROKEN => Failure::Broken,
            CUT => Failure::Cut,
            status => Failure::Status(status),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Connect => f.write_str("no connection"),
            Failure::TimedOut => f.write_str("no answer in time"),
            Failure::Broken => f.write_str("no valid answer"),
            Failure::Cut => f.write_str("an answer that broke off"),
            Failure::Status(status) => write!(f, "status {status}"),
        }
    }
}

/// Response times are summed as logarithms, so that a few long ones do not outweigh the many. The unit is
/// 1/`PARTS` of a doubling.
const PARTS: f64 = 1024.0;

/// Outcomes within some period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub requests: u64,
    pub failures: u64,
    /// Requests that got a response head.
    answers: u64,
    /// Sum of the base-2 logarithms of their response times in microseconds, in units of 1/[`PARTS`].
    times: u64,
}

impl Tally {
    /// The typical time to the response head: the geometric mean. `None` if no request got one.
    pub fn typical_time(&self) -> Option<Duration> {
        let mean = (self.answers > 0).then(|| self.times as f64 / self.answers as f64)?;
        Some(Duration::from_secs_f64((mean / PARTS).exp2() / 1e6))
    }

    /// Requests that got a response head.
    pub fn answers(&self) -> u64 {
        self.answers
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.answers += other.answers;
        self.times += other.times;
    }
}

/// The counters of one instance. Requests add to them, and the upstream's health manager collects them.
#[derive(Debug, Default)]
pub struct RequestStats {
    /// Number of failures in a row at which the health manager is woken; 0 = never.
    limit: AtomicU32,
    is_windowed: AtomicBool,
    internal_errors: AtomicBool,
    failures_in_row: AtomicU32,
    /// Truncated responses in a row. They are counted separately, because their heads end a row of failures.
    cuts_in_row: AtomicU32,
    last: AtomicU16,
    requests: AtomicU64,
    failures: AtomicU64,
    answers: AtomicU64,
    times: AtomicU64,
}

impl RequestStats {
    /// Applies the configuration of outlier detection.
    pub(super) fn follow(&self, config: &Outlier) {
        self.limit.store(config.consecutive.unwrap_or(0), Relaxed);
        self.is_windowed.store(config.has_window(), Relaxed);
        self.internal_errors.store(config.internal_errors, Relaxed);
    }

    /// Counts an outcome. Returns true when the limit of failures in a row is reached and the health manager
    /// must be woken. It is true only once per row.
    pub(super) fn add(&self, outcome: Outcome) -> bool {
        let is_windowed = self.is_windowed.load(Relaxed);
        match outcome {
            Outcome::Failed(failure) if self.counts(failure) => self.fail(failure, is_windowed),
            Outcome::Answered(_) | Outcome::Failed(_) => {
                end(&self.failures_in_row);
                if is_windowed {
                    self.requests.fetch_add(1, Relaxed);
                    if let Outcome::Answered(begun) = outcome {
                        self.answers.fetch_add(1, Relaxed);
                        self.times.fetch_add(log_time(begun.elapsed()), Relaxed);
                    }
                }
                false
            }
            Outcome::Completed => {
                end(&self.cuts_in_row);
                false
            }
        }
    }

    fn counts(&self, failure: Failure) -> bool {
        failure != Failure::Status(500) || self.internal_errors.load(Relaxed)
    }

    fn fail(&self, failure: Failure, is_windowed: bool) -> bool {
        if is_windowed {
            self.failures.fetch_add(1, Relaxed);
            // A truncated response belongs to a request that was counted with its head.
            self.requests.fetch_add(u64::from(failure != Failure::Cut), Relaxed);
        }
        self.last.store(failure.code(), Relaxed);
        let in_row = if failure == Failure::Cut { &self.cuts_in_row } else { &self.failures_in_row };
        in_row.fetch_add(1, AcqRel) + 1 == self.limit.load(Relaxed)
    }

    /// The present number of failures in a row, and the last failure.
    pub fn in_row(&self) -> (u32, Failure) {
        let in_row = self.failures_in_row.load(Relaxed).max(self.cuts_in_row.load(Relaxed));
        (in_row, Failure::from_code(self.last.load(Relaxed)))
    }

    /// Returns the counts since the last call and resets them.
    pub fn collect(&self) -> Tally {
        Tally {
            requests: self.requests.swap(0, Relaxed),
            failures: self.failures.swap(0, Relaxed),
            answers: self.answers.swap(0, Relaxed),
            times: self.times.swap(0, Relaxed),
        }
    }

    /// Resets all counters.
    pub fn forget(&self) {
        self.failures_in_row.store(0, Relaxed);
        self.cuts_in_row.store(0, Relaxed);
        self.collect();
    }
}

/// Ends a row of failures. It reads first, because the value is almost always 0, and a cache line that is
/// only read stays shared between cores.
fn end(in_row: &AtomicU32) {
    if in_row.load(Relaxed) != 0 {
        in_row.store(0, Relaxed);
    }
}

fn log_time(took: Duration) -> u64 {
    let micros = (took.as_secs_f64() * 1e6).max(1.0);
    (micros.log2() * PARTS) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: Outcome = Outcome::Failed(Failure::Status(502));

    fn answered(took: Duration) -> Outcome {
        Outcome::Answered(Instant::now() - took)
    }

    fn record(config: Outlier) -> RequestStats {
        let record = RequestStats::default();
        record.follow(&config);
        record
    }

    fn told(record: &RequestStats, outcomes: &[Outcome]) -> Vec<bool> {
        outcomes.iter().map(|outcome| record.add(*outcome)).collect()
    }

    #[test]
    fn the_warden_is_told_once_of_failures_in_a_row() {
        let record = record(Outlier { consecutive: Some(2), ..Outlier::DEFAULT });
        let good = answered(Duration::ZERO);
        assert_eq!(told(&record, &[BAD, good, BAD, BAD, BAD]), [false, false, false, true, false]);
        assert_eq!(record.in_row(), (3, Failure::Status(502)));
        record.forget();
        assert_eq!(record.in_row().0, 0);
    }

    #[test]
    fn answers_that_break_off_count_though_their_heads_are_good() {
        let record = record(Outlier { consecutive: Some(2), ..Outlier::DEFAULT });
        let (good, cut) = (answered(Duration::ZERO), Outcome::Failed(Failure::Cut));
        assert_eq!(told(&record, &[good, cut, good, cut]), [false, false, false, true]);
        assert_eq!(told(&record, &[Outcome::Completed, good, cut]), [false, false, false]);
    }

    #[test]
    fn a_500_counts_only_where_it_is_wanted() {
        let bad = Outcome::Failed(Failure::Status(500));
        let cautious = record(Outlier { consecutive: Some(1), ..Outlier::CAUTIOUS });
        assert_eq!(told(&cautious, &[bad, BAD]), [false, true]);
        assert_eq!(told(&record(Outlier { consecutive: Some(1), ..Outlier::DEFAULT }), &[bad]), [true]);
    }

    #[test]
    fn nothing_is_told_when_it_is_off() {
        let record = record(Outlier { consecutive: None, ..Outlier::DEFAULT });
        assert_eq!(told(&record, &[BAD; 4]), [false; 4]);
        assert_eq!(record.collect(), Tally::default());
    }

    #[test]
    fn a_tally_has_every_request_once_and_is_taken_away() {
        let record = record(Outlier { error_rate: Some(50), ..Outlier::DEFAULT });
        let good = answered(Duration::ZERO);
        told(&record, &[good, BAD, good, Outcome::Failed(Failure::Cut)]);
        let tally = record.collect();
        assert_eq!((tally.requests, tally.failures, tally.answers()), (3, 2, 2));
        assert_eq!(record.collect(), Tally::default());
    }

    #[tokio::test(start_paused = true)]
    async fn the_typical_time_is_not_moved_by_one_that_took_long() {
        let record = record(Outlier { latency: Some(3), ..Outlier::DEFAULT });
        assert_eq!(record.collect().typical_time(), None);
        told(&record, &[answered(Duration::from_millis(10)); 99]);
        record.add(answered(Duration::from_secs(60)));
        let typical = record.collect().typical_time().unwrap().as_secs_f64();
        assert!((0.010..0.011).contains(&typical), "{typical}");
    }
}
