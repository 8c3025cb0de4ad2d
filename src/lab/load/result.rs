//! The result of a load: the figures that are printed, written as JSON and compared.
//!
//! Durations are in milliseconds; times are in seconds since the start of the load. Both are as observed by
//! the users.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The result of one load. Actions, their latencies, stream times and failures count actions that were due
/// after the warm-up. Requests, bytes, sessions, losses, instances and the timeline include the warm-up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    /// Name of the scenario.
    pub scenario: String,
    pub target: String,
    /// The same scenario, target and seed give the same decisions.
    pub seed: u64,
    /// The requested rate in actions per second. `None`: closed model.
    pub asked_rate: Option<f64>,
    /// The counted time, without the warm-up.
    pub seconds: f64,
    /// All responses, including those of logins and repeated actions.
    pub requests: u64,
    /// Bytes of response bodies.
    pub bytes: u64,
    /// By action name.
    pub actions: BTreeMap<String, ActionResult>,
    /// All actions together.
    pub all: ActionResult,
    /// Time from a stream's request to its first event.
    pub first_token: Histogram,
    /// Time between two events of a stream.
    pub token_gap: Histogram,
    pub sessions: Sessions,
    /// Every lost session, in the order of detection.
    pub losses: Vec<Loss>,
    /// Failed actions by failure: `connect`, `timeout`, `cut`, `status 502`, `unexpected body`,
    /// `session lost`, `no value for id in the answer`, `not begun`, `unfinished` … With the text of a
    /// problem document (RFC 9457): `status 503: Every instance is busy`. Captured values and cookies are
    /// masked.
    pub failures: BTreeMap<String, u64>,
    /// Responses by instance, if the scenario names the header that identifies it.
    pub instances: BTreeMap<String, u64>,
    /// Without gaps from the start to the end.
    pub timeline: Vec<Slice>,
}

/// The results of the actions of one name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionResult {
    /// Completed actions, including failed ones.
    pub done: u64,
    pub failed: u64,
    /// From the due time of an action to its end, including the logins that it required. Without failed
    /// actions.
    pub latency: Histogram,
}

/// How many sessions began, and how they ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Successful logins, each of which begins a session.
    pub begun: u64,
    /// Sessions that the application no longer knew although no user had ended them.
    pub lost: u64,
    /// Sessions that their users ended.
    pub ended: u64,
    /// Sessions whose final check failed, so that their state is unknown. A session that is neither lost,
    /// ended nor unclear was alive at the end.
    pub unclear: u64,
}

/// A lost session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// When its user detected the loss.
    pub at: f64,
    /// The user's number.
    pub user: u32,
    /// The application's name for the login (not the session id), if the scenario names the header that
    /// contains it.
    pub login: Option<String>,
    /// The instance that refused the session.
    pub instance: Option<String>,
}

/// One part of the timeline.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// Its start; it ends where the next slice begins.
    pub at: f64,
    pub done: u64,
    pub failed: u64,
    pub lost: u64,
    /// Of the actions that ended in the slice; 0 without any.
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// Responses by instance.
    pub instances: BTreeMap<String, u64>,
}

/// A distribution of durations.
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
    /// Durations and their counts, ascending. Each duration stands for a range of one part in a thousand.
    pub counts: Vec<(f64, u64)>,
}
