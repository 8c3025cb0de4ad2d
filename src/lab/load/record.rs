//! Records of a running load. Each thread has its own; they are summed at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use tokio::time::Instant;

use super::failure::Failure;
use super::result::{Loss, Sessions};

/// Length of a timeline slice.
pub(super) const SLICE: Duration = Duration::from_millis(500);
/// In nanoseconds; longer times are recorded as this.
const LONGEST: u64 = 3600 * 1_000_000_000;

/// Maximum number of failures per thread that keep the application's own text.
const MAX_FAILURES: usize = 64;

/// A histogram in nanoseconds.
pub(super) type Times = Histogram<u64>;

/// The records of one thread.
#[derive(Debug, Clone)]
pub(super) struct Records {
    began: Instant,
    /// Indexed like the scenario's actions.
    pub(super) actions: Vec<ActionRecord>,
    pub(super) first_token: Times,
    pub(super) token_gap: Times,
    pub(super) sessions: Sessions,
    pub(super) losses: Vec<Loss>,
    pub(super) failures: BTreeMap<Failure, u64>,
    pub(super) requests: u64,
    pub(super) bytes: u64,
    pub(super) slices: Vec<SliceRecord>,
    blank: SliceRecord,
}

/// The counted actions of one name.
#[derive(Debug, Clone)]
pub(super) struct ActionRecord {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) latency: Times,
}

/// The events of one timeline slice.
#[derive(Debug, Clone)]
pub(super) struct SliceRecord {
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    /// With a precision of 1 %, because there are many slices.
    pub(super) latency: Histogram<u32>,
    pub(super) instances: BTreeMap<Box<str>, u64>,
}

/// A completed action.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) action: usize,
    /// When the action was due.
    pub(super) due: Instant,
    /// Whether it was due after the warm-up.
    pub(super) counted: bool,
    pub(super) failure: Option<Failure>,
}

impl Records {
    /// Empty records of a load that begins at `began`.
    pub(super) fn new(began: Instant, actions: usize) -> Result<Self, CreationError> {
        let times = Histogram::new_with_max(LONGEST, 3)?;
        let latency = Histogram::new(2)?;
        let action = ActionRecord { done: 0, failed: 0, latency: times.clone() };
        Ok(Records {
            began,
            actions: vec![action; actions],
            first_token: times.clone(),
            token_gap: times,
            sessions: Sessions::default(),
            losses: Vec::new(),
            failures: BTreeMap::new(),
            requests: 0,
            bytes: 0,
            slices: Vec::new(),
            blank: SliceRecord { done: 0, failed: 0, lost: 0, latency, instances: BTreeMap::new() },
        })
    }

    /// Records a response that was read to its end, or as far as it arrived.
    pub(super) fn answered(&mut self, now: Instant, instance: Option<&str>, bytes: u64) {
        self.requests += 1;
        self.bytes += bytes;
        if let (Some(instance), Some(slice)) = (instance, self.slice(now)) {
            match slice.instances.get_mut(instance) {
                Some(count) => *count += 1,
                None => drop(slice.instances.insert(instance.into(), 1)),
            }
        }
    }

    /// Records the arrival of an event: `after` counts from the request for the first event, otherwise from
    /// the previous event.
    pub(super) fn token(&mut self, is_first: bool, after: Duration) {
        let times = if is_first { &mut self.first_token } else { &mut self.token_gap };
        times.saturating_record(nanoseconds(after));
    }

    pub(super) fn lost(&mut self, now: Instant, user: u32, login: Option<String>, instance: Option<String>) {
        self.sessions.lost += 1;
        self.losses.push(Loss { at: (now - self.began).as_secs_f64(), user, login, instance });
        if let Some(slice) = self.slice(now) {
            slice.lost += 1;
        }
    }

    pub(super) fn ended(&mut self, now: Instant, Ended { action, due, counted, failure }: Ended) {
        let latency = nanoseconds(now - due);
        if let Some(slice) = self.slice(now) {
            slice.done += 1;
            match failure {
                Some(_) => slice.failed += 1,
                // The histogram grows as needed, so recording cannot fail.
                None => drop(slice.latency.record(latency.min(LONGEST))),
            }
        }
        let Some(record) = self.actions.get_mut(action).filter(|_| counted) else { return };
        record.done += 1;
        match failure {
            None => record.latency.saturating_record(latency),
            Some(failure) => {
                record.failed += 1;
                let is_known = self.failures.len() < MAX_FAILURES || self.failures.contains_key(&failure);
                let failure = if is_known { failure } else { failure.plain() };
                *self.failures.entry(failure).or_default() += 1;
            }
        }
    }

    /// The slice of the current time.
    fn slice(&mut self, now: Instant) -> Option<&mut SliceRecord> {
        let index = (now - self.began).as_micros() / SLICE.as_micros();
        let index = usize::try_from(index).ok()?;
        if self.slices.len() <= index {
            self.slices.resize(index + 1, self.blank.clone());
        }
        self.slices.get_mut(index)
    }

    /// Extends the timeline without gaps to `end`.
    pub(super) fn extend(&mut self, end: Instant) {
        self.slice(end);
    }

    /// Adds the records of another thread.
    pub(super) fn add(&mut self, other: Records) {
        for (own, others) in self.actions.iter_mut().zip(other.actions) {
            own.done += others.done;
            own.failed += others.failed;
            own.latency += others.latency;
        }
        self.first_token += other.first_token;
        self.token_gap += other.token_gap;
        self.sessions.begun += other.sessions.begun;
        self.sessions.lost += other.sessions.lost;
        self.sessions.ended += other.sessions.ended;
        self.sessions.unclear += other.sessions.unclear;
        self.losses.extend(other.losses);
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.slices.resize(self.slices.len().max(other.slices.len()), self.blank.clone());
        for (own, others) in self.slices.iter_mut().zip(other.slices) {
            own.add(others);
        }
    }
}

impl SliceRecord {
    fn add(&mut self, other: SliceRecord) {
        self.done += other.done;
        self.failed += other.failed;
        self.lost += other.lost;
        self.latency += other.latency;
        for (instance, count) in other.instances {
            *self.instances.entry(instance).or_default() += count;
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(LONGEST)
}
