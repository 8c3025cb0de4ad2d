//! What a comparison comes to: what the report shows, what is written as JSON, and what a later comparison is held
//! against.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::published::Published;
use crate::lab::load::LoadResult;

/// Everything about one comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Of this structure; [`Comparison::VERSION`] when it was written by this program.
    pub version: u32,
    /// When it was begun, as RFC 3339.
    pub created: String,
    /// Of vestibule.
    pub program: String,
    pub machine: Machine,
    pub setup: Setup,
    /// In the order in which they were asked for.
    pub modes: Vec<ModeResult>,
    /// Every later mode beside the first.
    pub contrasts: Vec<Contrast>,
    pub verdict: Verdict,
    /// Where the scenario names published figures.
    #[serde(default)]
    pub published: Option<Published>,
    /// Every run, in the order in which they ran.
    pub runs: Vec<Run>,
}

impl Comparison {
    /// Of the structure as it is here.
    pub const VERSION: u32 = 2;

    /// What every round of `mode` gave for a figure, by round.
    pub fn rounds(&self, mode: &str, figure: Figure) -> BTreeMap<u32, f64> {
        let of_mode = self.runs.iter().filter(|run| run.mode == mode);
        of_mode.filter_map(|run| Some((run.round, run.figure(figure)?))).collect()
    }
}

impl Run {
    /// A figure of this run; `None` when it was not measured.
    pub fn figure(&self, figure: Figure) -> Option<f64> {
        self.figures.iter().find(|(own, _)| *own == figure).map(|(_, value)| *value)
    }
}

impl ModeResult {
    /// A figure over all rounds; `None` when it was not measured.
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

/// What was done, in enough detail to do it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    pub scenario: String,
    /// The scenario's file.
    pub scenario_text: String,
    pub seed: u64,
    pub rounds: u32,
    /// What was compared on, in words: `4 stub instances of 10 slots` or the instances' addresses.
    pub target: String,
    /// Where shared sessions were kept, in words, without credentials.
    pub store: String,
    /// The command line that does it again.
    pub command: String,
    /// Each mode's configuration of the proxy, without secrets.
    pub configurations: Vec<(String, String)>,
}

/// One mode's figures over all its rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModeResult {
    /// `local`, `sticky`, `shared`, `shared-uncached`, `shared-synchronous`.
    pub mode: String,
    /// In the order of [`Figure::ALL`]; one that could not be measured is missing.
    pub figures: Vec<(Figure, Estimate)>,
}

/// What is measured of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// Of a user's action, forced logins included; milliseconds, like the four below.
    LatencyMean,
    LatencyP50,
    LatencyP95,
    LatencyP99,
    FirstTokenP50,
    /// Of all sessions, in percent.
    SessionsLost,
    /// Of all actions, in percent.
    ActionsFailed,
    /// That did not fail.
    ActionsPerSecond,
    /// Load of the busiest instance by the mean of all, while all run.
    ImbalanceMax,
    /// Standard deviation of the instances' load by its mean, while all run.
    ImbalanceCv,
    /// Percent of the load that new instances take, ten seconds after they came or at the end of that phase.
    ScaleOutShare,
    /// Commands to the store by request; this and the two below without what is there without any request.
    StoreCommands,
    /// Bytes to and from the store by request.
    StoreBytes,
    /// Microseconds of processor time of the proxy by request.
    ProxyCpu,
    /// Most resident memory of the proxy, in MiB.
    ProxyMemory,
}

/// A mean over rounds with its confidence interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub mean: f64,
    /// `None` after a single round, which tells nothing of how far the next one would be from it.
    pub interval: Option<Interval>,
    /// What each round gave.
    pub rounds: Vec<f64>,
}

/// Where a mean lies with 95 % confidence, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// How far one mode is from another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contrast {
    pub figure: Figure,
    pub base: String,
    pub other: String,
    /// `other` less `base`, round by round.
    pub difference: Estimate,
}

/// What follows from the figures, in words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The mode that served the users best; `None` where that was shown of no single one.
    pub best: Option<String>,
    /// One sentence.
    pub headline: String,
    /// What supports it, each with its figures and intervals.
    pub reasons: Vec<String>,
    /// Under which conditions it holds, and what was not measured.
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
    /// What the instances themselves know of lost sessions; `None` for instances that do not tell.
    pub oracle: Option<Oracle>,
    pub figures: Vec<(Figure, f64)>,
    /// How much of each cost by request the proxy and the store have without any request, from 0 to 1. The figures are
    /// without it; a cost of which more than a fifth is such is not among them.
    #[serde(default)]
    pub idle_shares: Vec<(Figure, f64)>,
}

/// Something that happened while the load ran; seconds since it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventMark {
    /// `instance killed`, `scale-out`, `rolling restart`, `store primary killed`.
    pub name: String,
    /// To whom: `api-2`.
    pub subject: String,
    pub at: f64,
    /// When all was well again; `None` for what stays.
    pub until: Option<f64>,
}

/// Lost sessions by the instances' own count, to be held against the users'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oracle {
    /// Sessions of logins that an instance had granted and an instance refused.
    pub lost: u64,
    /// Whether they are the same sessions that the users missed.
    pub agrees: bool,
}
