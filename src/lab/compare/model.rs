//! The result of a comparison: the data of the report, the JSON file, and baselines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::published::Published;
use crate::lab::load::LoadResult;

/// One complete comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Version of this structure; [`Comparison::VERSION`] when written by this program.
    pub version: u32,
    /// Start time as RFC 3339.
    pub created: String,
    /// The version of vestibule.
    pub program: String,
    pub machine: Machine,
    pub setup: Setup,
    /// In the requested order.
    pub modes: Vec<ModeResult>,
    /// Every later mode compared with the first.
    pub contrasts: Vec<Contrast>,
    pub verdict: Verdict,
    /// Present when the scenario names published figures.
    #[serde(default)]
    pub published: Option<Published>,
    /// Every run, in the order of execution.
    pub runs: Vec<Run>,
}

impl Comparison {
    /// The current version of the structure.
    pub const VERSION: u32 = 2;

    /// The values of a figure in `mode`, by round.
    pub fn rounds(&self, mode: &str, figure: Figure) -> BTreeMap<u32, f64> {
        let of_mode = self.runs.iter().filter(|run| run.mode == mode);
        of_mode.filter_map(|run| Some((run.round, run.figure(figure)?))).collect()
    }
}

impl Run {
    /// A figure of this run. `None` when it was not measured.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        self.figures.iter().find(|(own, _)| *own == figure).map(|(_, value)| *value)
    }
}

impl ModeResult {
    /// A figure over all rounds. `None` when it was not measured.
    pub fn figure(&self, figure: Figure) -> Option<&Estimate> {
        self.figures.iter().find(|(own, _)| *own == figure).map(|(_, estimate)| estimate)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub system: String,
}

/// The setup, detailed enough to repeat the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    pub scenario: String,
    /// The text of the scenario file.
    pub scenario_text: String,
    pub seed: u64,
    pub rounds: u32,
    /// The target in words: `4 stub instances of 10 slots` or the instances' addresses.
    pub target: String,
    /// The session store in words, without credentials.
    pub store: String,
    /// The command line that reproduces the comparison.
    pub command: String,
    /// The proxy configuration of each mode, without secrets.
    pub configurations: Vec<(String, String)>,
}

/// The figures of one mode over all its rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModeResult {
    /// `local`, `sticky`, `shared`, `shared-uncached`, `shared-synchronous`.
    pub mode: String,
    /// In the order of [`Figure::ALL`]. Figures that could not be measured are missing.
    pub figures: Vec<(Figure, Estimate)>,
}

/// A measured figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Latency of a user's action including forced logins, in milliseconds, like the four below.
    LatencyMean,
    LatencyP50,
    LatencyP95,
    LatencyP99,
    FirstTokenP50,
    /// Percent of all sessions.
    SessionsLost,
    /// Percent of all actions.
    ActionsFailed,
    /// Successful actions per second.
    ActionsPerSecond,
    /// Load of the busiest instance divided by the mean of all, while all run.
    ImbalanceMax,
    /// Coefficient of variation: standard deviation of the instances' load divided by its mean, while all
    /// run.
    ImbalanceCv,
    /// Percent of the load on new instances, ten seconds after the scale-out or at the end of that phase.
    ScaleOutShare,
    /// Store commands per request. This and the two below exclude the idle cost.
    StoreCommands,
    /// Bytes to and from the store per request.
    StoreBytes,
    /// CPU time of the proxy per request, in microseconds.
    ProxyCpu,
    /// Peak resident memory of the proxy, in MiB.
    ProxyMemory,
}

/// A mean over rounds with its confidence interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub mean: f64,
    /// `None` after a single round, which has no variance.
    pub interval: Option<Interval>,
    /// The value of each round.
    pub rounds: Vec<f64>,
}

/// A 95 % confidence interval, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// The difference between two modes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    pub figure: Figure,
    pub base: String,
    pub other: String,
    /// `other` minus `base`, paired by round.
    pub difference: Estimate,
}

/// The conclusion from the figures, in words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The mode that served the users best. `None` when no single mode was shown to be best.
    pub best: Option<String>,
    /// One sentence.
    pub headline: String,
    /// The supporting figures, each with its interval.
    pub reasons: Vec<String>,
    /// The conditions of the verdict, and what was not measured.
    pub conditions: Vec<String>,
}

/// One mode in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub mode: String,
    /// From 1.
    pub round: u32,
    pub load: LoadResult,
    pub events: Vec<EventMark>,
    /// The instances' own account of lost sessions. `None` for instances that do not provide one.
    pub oracle: Option<Oracle>,
    pub figures: Vec<(Figure, f64)>,
    /// The idle share of each cost per request, from 0 to 1. The figures exclude it; a cost whose idle share
    /// exceeds a fifth is not among them.
    #[serde(default)]
    pub idle_shares: Vec<(Figure, f64)>,
}

/// An event during the load; times are seconds since its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventMark {
    /// `instance killed`, `scale-out`, `rolling restart`, `store primary killed`.
    pub name: String,
    /// The affected instance, such as `api-2`.
    pub subject: String,
    pub at: f64,
    /// When the previous state was restored. `None` for permanent changes.
    pub until: Option<f64>,
}

/// Lost sessions by the instances' own account, for a cross-check with the users' account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oracle {
    /// Sessions of logins that one instance granted and an instance refused.
    pub lost: u64,
    /// Whether they are the same sessions that the users lost.
    pub agrees: bool,
}
