//! The defaults that a scenario sets for its comparison, and the published figures that it is checked
//! against. `config/scenarios/published-sessions.toml` documents every key.

use std::time::Duration;

use super::scenario::{OnLost, Think};

/// A scenario's settings for a comparison.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Staging {
    /// Names of session modes. Empty: the comparison's default.
    pub modes: Vec<&'static str>,
    /// Names of events. `None`: the comparison's default.
    pub events: Option<Vec<&'static str>>,
    pub stubs: StubStaging,
    /// Network latency (round trip) that is added between the proxy and the store.
    pub store_delay: Duration,
    /// Figures published elsewhere.
    pub published: Vec<Claim>,
    /// Additional measurements, each with one thing changed.
    pub assumptions: Vec<Assumption>,
}

/// Settings of the stub instances that the comparison starts. `None`: the comparison's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StubStaging {
    /// At least 1.
    pub instances: Option<usize>,
    /// Concurrent requests per instance; at least 1.
    pub slots: Option<u32>,
    /// Median response time of a profile request. The times of all other requests except logins scale with
    /// it.
    pub answer: Option<Duration>,
    /// Median response time of a login.
    pub login: Option<Duration>,
}

/// One published figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Claim {
    pub mode: &'static str,
    /// Key of the figure.
    pub figure: &'static str,
    /// In the figure's unit; finite and not negative.
    pub value: f64,
}

/// A variant of the scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumption {
    /// The changed assumption, in words.
    pub about: String,
    pub change: Change,
}

/// The changes. `None`: unchanged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    pub users: Option<u32>,
    pub think: Option<Think>,
    pub on_lost: Option<OnLost>,
    pub login_attempts: Option<u32>,
    pub events: Option<Vec<&'static str>>,
    pub stubs: StubStaging,
    pub store_delay: Option<Duration>,
}
