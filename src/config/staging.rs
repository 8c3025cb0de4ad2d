//! How a comparison of a scenario is staged unless its user says otherwise, and which published figures it is held
//! against. Every key and its meaning are in `config/scenarios/published-sessions.toml`.

use std::time::Duration;

use super::scenario::{OnLost, Think};

/// What a scenario wishes of a comparison.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Staging {
    /// Names of session modes; empty: the comparison's own choice.
    pub modes: Vec<&'static str>,
    /// Names of events; `None`: the comparison's own choice.
    pub events: Option<Vec<&'static str>>,
    pub stubs: StubStaging,
    /// What the way to the store and back takes longer than it does here.
    pub store_delay: Duration,
    /// What somebody has measured elsewhere.
    pub published: Vec<Claim>,
    /// What is measured besides, with one thing changed each.
    pub assumptions: Vec<Assumption>,
}

/// Wishes of the instances that are started for the purpose; `None`: the comparison's own choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StubStaging {
    /// At least 1.
    pub instances: Option<usize>,
    /// Requests at a time of each; at least 1.
    pub slots: Option<u32>,
    /// Median of what an instance takes to show a profile; all else but logins takes longer in proportion.
    pub answer: Option<Duration>,
    /// Median of what an instance takes for a login.
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

/// The scenario with something changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Assumption {
    /// What is assumed otherwise, in words.
    pub about: String,
    pub change: Change,
}

/// What is changed; `None`: it is as it was.
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
