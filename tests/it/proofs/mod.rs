//! What the program promises under load and over time. Every proof has a short form, which is always run, and
//! a long one with figures, which `tests/run.sh --long` runs against the release build.

mod abandoned_runs;
mod black_holes;
mod broken_instances;
mod canaries;
mod cancellations;
mod cancelled_look_ups;
mod comparisons;
mod discovery;
mod durable_revocations;
mod event_streams;
mod failovers;
mod idle_clients;
mod kept_connections;
mod large_bodies;
mod late_starters;
mod load_figures;
mod look_ups;
mod newcomers;
mod pace;
mod reloads;
mod renewals;
mod revocation_faults;
mod revocations;
mod rolling_restarts;
mod session_memory;
mod shares;
mod shutdown;
mod slots;
mod slow_clients;
mod steady;
mod store_outages;
mod ties;
mod upgrades;
mod websockets;

use std::fmt::Display;
use std::time::Duration;

pub(crate) use pace::Pace;

/// Whether the long forms are run.
fn long() -> bool {
    let long = std::env::var_os("VESTIBULE_LONG").is_some();
    let program = std::env::var_os("VESTIBULE_PROGRAM").is_some();
    assert!(program || !long, "long proofs need VESTIBULE_PROGRAM, the path of a release build");
    long
}

/// The measure of a proof in its short and its long form.
pub(crate) fn scaled<T>(short: T, long_form: T) -> T {
    if long() { long_form } else { short }
}

/// How often a proof tries that mostly waits: in the long form this many percent of `long_form`, which
/// `VESTIBULE_ROUNDS` says, or all of it.
pub(crate) fn rounds(short: usize, long_form: usize) -> usize {
    let percent = || std::env::var("VESTIBULE_ROUNDS").map_or(100, |percent| percent.parse().unwrap());
    if long() { (long_form * percent() / 100).max(1) } else { short }
}

/// Prints what was found; the runner shows it with the long forms.
pub(crate) fn report(what: &str, figures: impl Display) {
    eprintln!("PROOF {what}: {figures}");
}

/// Durations as percentiles.
pub(crate) struct Spread(Vec<Duration>);

impl Spread {
    pub(crate) fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    pub(crate) fn at(&self, percent: usize) -> Duration {
        self.0
            .get((self.0.len() * percent / 100).min(self.0.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn most(&self) -> Duration {
        self.at(100)
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (half, nearly, all) = (self.at(50), self.at(99), self.most());
        write!(f, "{} times, p50 {half:.2?}, p99 {nearly:.2?}, max {all:.2?}", self.0.len())
    }
}
