//! Progress of draining an instance.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::table::{duration, list};

/// After the deadline, for the remaining requests to end.
const GRACE: Duration = Duration::from_secs(5);

/// The state between two polls.
#[derive(Debug)]
pub(super) struct Progress {
    line: String,
    /// Streams that were cut before the order.
    closed: u64,
    /// When a poll first saw that the deadline had passed.
    passed: Option<Instant>,
    had_deadline: bool,
}

/// The outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The instance is drained: nothing left can be lost.
    Nothing,
    /// The deadline has passed with something left, or something was cut.
    Something,
    /// The instance serves again.
    Recalled,
}

/// The sums over the rows of one instance.
#[derive(Debug, Default, PartialEq, Eq)]
struct Left {
    requests: u64,
    streams: u64,
    sessions: u64,
    closed: u64,
    deadline: Option<u64>,
    ready: bool,
    draining: bool,
}

impl Left {
    fn of(report: &Value) -> Self {
        let mut left = Left::default();
        for instance in list(report, "upstreams").flat_map(|upstream| list(upstream, "instances")) {
            let number = |name: &str| instance.get(name).and_then(Value::as_u64);
            left.requests += number("requests").unwrap_or_default();
            left.streams += number("streams").unwrap_or_default();
            left.sessions += number("sessions").unwrap_or_default();
            left.closed += number("streams_closed").unwrap_or_default();
            left.deadline = left.deadline.max(number("deadline_seconds"));
            left.ready |= instance["state"] == "ready";
            left.draining |= instance["state"] == "drain";
        }
        left
    }
}

impl Progress {
    /// Starts from the response to the order.
    pub(super) fn new(report: &Value) -> Self {
        let left = Left::of(report);
        Progress {
            line: String::new(),
            closed: left.closed,
            passed: None,
            had_deadline: left.deadline.is_some(),
        }
    }

    /// Evaluates a report. Returns a line if it has changed, and the outcome if it is decided.
    pub(super) fn look(&mut self, report: &Value) -> (Option<String>, Option<Verdict>) {
        let left = Left::of(report);
        let verdict = self.verdict(&left);
        let line = self.describe(&left, verdict);
        let is_new = line != self.line;
        self.line.clone_from(&line);
        (is_new.then_some(line), verdict)
    }

    fn verdict(&mut self, left: &Left) -> Option<Verdict> {
        if left.ready {
            return Some(Verdict::Recalled);
        }
        let cut = left.closed > self.closed;
        if left.requests == 0 && cut {
            return Some(Verdict::Something);
        }
        // An instance in state `down` keeps no sessions, so they need not be waited for.
        if left.requests == 0 && (left.sessions == 0 || !left.draining) {
            return Some(Verdict::Nothing);
        }
        if left.draining || left.deadline.is_some() || !self.had_deadline {
            return None;
        }
        let passed = self.passed.get_or_insert_with(Instant::now);
        (passed.elapsed() >= GRACE).then_some(Verdict::Something)
    }

    fn describe(&self, left: &Left, verdict: Option<Verdict>) -> String {
        let Left { requests, streams, sessions, .. } = left;
        let cut = left.closed.saturating_sub(self.closed);
        let sessions = match (sessions, left.draining) {
            (0, _) => String::new(),
            (count, true) => format!(", {count} sessions"),
            (count, false) => format!(", {count} sessions move"),
        };
        let end = match (verdict, left.deadline) {
            (Some(Verdict::Nothing), _) => "; done".to_owned(),
            (Some(_), _) if cut > 0 => format!("; {cut} cut"),
            (_, Some(seconds)) => format!("; {} left", duration(seconds)),
            (_, None) if self.had_deadline => "; the deadline has passed".to_owned(),
            (_, None) => String::new(),
        };
        format!("{requests} requests ({streams} streams){sessions}{end}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(state: &str, requests: u64, sessions: u64, deadline: Option<u64>, closed: u64) -> Value {
        json!({ "upstreams": [{ "instances": [{ "state": state, "requests": requests, "streams": requests / 2,
            "sessions": sessions, "deadline_seconds": deadline, "streams_closed": closed }] }] })
    }

    fn told(progress: &mut Progress, report: &Value) -> (String, Option<Verdict>) {
        let (line, verdict) = progress.look(report);
        (line.unwrap_or_default(), verdict)
    }

    #[test]
    fn it_is_done_when_neither_requests_nor_sessions_are_left() {
        let mut progress = Progress::new(&report("drain", 2, 3, Some(60), 0));
        let first = told(&mut progress, &report("drain", 2, 3, Some(60), 0));
        assert_eq!(first, ("2 requests (1 streams), 3 sessions; 1m0s left".into(), None));
        assert_eq!(told(&mut progress, &report("drain", 2, 3, Some(60), 0)), (String::new(), None));
        assert_eq!(told(&mut progress, &report("drain", 0, 3, Some(59), 0)).1, None);
        let last = told(&mut progress, &report("drain", 0, 0, Some(58), 0));
        assert_eq!(last, ("0 requests (0 streams); done".into(), Some(Verdict::Nothing)));
    }

    #[test]
    fn after_the_deadline_sessions_move_and_requests_have_a_moment_to_end() {
        let mut progress = Progress::new(&report("drain", 2, 3, Some(60), 5));
        let passed = told(&mut progress, &report("down", 1, 3, None, 5));
        assert_eq!(passed, ("1 requests (0 streams), 3 sessions move; the deadline has passed".into(), None));
        let last = told(&mut progress, &report("down", 0, 3, None, 5));
        assert_eq!(last, ("0 requests (0 streams), 3 sessions move; done".into(), Some(Verdict::Nothing)));
        progress.passed = Instant::now().checked_sub(GRACE);
        assert_eq!(told(&mut progress, &report("down", 1, 3, None, 5)).1, Some(Verdict::Something));
    }

    #[test]
    fn what_was_cut_is_told() {
        let mut progress = Progress::new(&report("drain", 2, 0, Some(60), 5));
        let last = told(&mut progress, &report("down", 0, 0, None, 7));
        assert_eq!(last, ("0 requests (0 streams); 2 cut".into(), Some(Verdict::Something)));
    }

    #[test]
    fn without_a_deadline_it_takes_as_long_as_it_takes_unless_it_is_recalled() {
        let mut progress = Progress::new(&report("down", 2, 3, None, 0));
        assert_eq!(told(&mut progress, &report("down", 1, 3, None, 0)).1, None);
        assert_eq!(told(&mut progress, &report("ready", 1, 3, None, 0)).1, Some(Verdict::Recalled));
    }
}
