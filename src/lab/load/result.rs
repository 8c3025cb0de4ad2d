//! What a load came to: the figures that are printed, written as JSON and compared.
//!
//! Times are milliseconds and moments are seconds since the load began, both as they were seen by the users.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything about one load. Actions, their latencies, the times of streams and the failures are those of actions that
/// were due after the warming up; requests, bytes, sessions, losses, instances and the timeline tell of all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// Name of the scenario.
    pub scenario: String,
    pub target: String,
    /// The same scenario, target and seed make the same decisions.
    pub seed: u64,
    /// Actions per second that were asked for; `None`: users come back when they have thought (closed model).
    pub asked_rate: Option<f64>,
    /// How long actions were counted, without warming up.
    pub seconds: f64,
    /// Answers of all kinds, those of logins and repeated actions included.
    pub requests: u64,
    /// Bytes of answers' bodies.
    pub bytes: u64,
    /// By the name that the scenario gives it.
    pub actions: BTreeMap<String, ActionResult>,
    /// All actions together.
    pub all: ActionResult,
    /// From the request of a stream to its first event.
    pub first_token: Histogram,
    /// Between two events of a stream.
    pub token_gap: Histogram,
    pub sessions: Sessions,
    /// Every lost session, in the order in which the losses were noticed.
    pub losses: Vec<Loss>,
    /// Failed actions by what failed: `connect`, `timeout`, `cut`, `status 502`, `unexpected body`, `session lost`,
    /// `no value for id in the answer`, `not begun`, `unfinished` … With what a problem document (RFC 9457) says:
    /// `status 503: Every instance is busy`. No value that users took from answers, and no cookie, is in it.
    pub failures: BTreeMap<String, u64>,
    /// Answers by the instance that gave them, where the scenario names the header that tells.
    pub instances: BTreeMap<String, u64>,
    /// Without gaps from the beginning to the end.
    pub timeline: Vec<Slice>,
}

/// What became of the actions of one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionResult {
    /// Those that came to their end, failed ones included.
    pub done: u64,
    pub failed: u64,
    /// From when the action was due to its end, the logins that it was made to do included. Without failed ones.
    pub latency: Histogram,
}

/// How many sessions began and how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Successful logins: the sessions that there were.
    pub begun: u64,
    /// Sessions that the application did not know any more, though nobody had ended them.
    pub lost: u64,
    /// Sessions that their users ended.
    pub ended: u64,
    /// Sessions of which nobody could tell at the end whether the application still knew them, as the question
    /// failed. What is neither lost, ended nor unclear was alive at the end.
    pub unclear: u64,
}

/// A session that was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// When its user noticed.
    pub at: f64,
    /// The user's number.
    pub user: u32,
    /// The application's name for the login (not the session id), where the scenario names the header that tells.
    pub login: Option<String>,
    /// Who refused it.
    pub instance: Option<String>,
}

/// What happened in a part of the load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// When it begins; it ends where the next one does.
    pub at: f64,
    pub done: u64,
    pub failed: u64,
    pub lost: u64,
    /// Of the actions that ended in it; 0 without any.
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// Answers by instance.
    pub instances: BTreeMap<String, u64>,
}

/// A distribution of times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// Times and how often each was met, rising; one time stands for all within one part in a thousand of it.
    pub counts: Vec<(f64, u64)>,
}
