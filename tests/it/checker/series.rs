//! Runs of one kind after the other, and what they came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::plan::Plan;
use super::run::{run, shrink, tell};
use super::verdict::{Promise, Verdict};
use crate::proofs::{Spread, report, scaled};

/// What many runs came to.
#[derive(Debug, Default)]
pub(super) struct Sum {
    runs: usize,
    asked: usize,
    refused: usize,
    changes: usize,
    revoked: usize,
    surprises: usize,
    excused: usize,
    faults: BTreeMap<String, usize>,
    broken: BTreeMap<Promise, usize>,
    late: Vec<Duration>,
    late_in_faults: Vec<Duration>,
    recoveries: Vec<Duration>,
}

impl Sum {
    pub(super) fn add(&mut self, verdict: Verdict) {
        self.runs += 1;
        self.asked += verdict.asked;
        self.refused += verdict.refused;
        self.changes += verdict.changes;
        self.revoked += verdict.revoked;
        self.surprises += verdict.surprises;
        self.excused += verdict.excused;
        for (kind, count) in verdict.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for violation in verdict.violations {
            *self.broken.entry(violation.promise).or_default() += 1;
        }
        self.late.extend(verdict.late);
        self.late_in_faults.extend(verdict.late_in_faults);
        self.recoveries.extend(verdict.recoveries);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = |durations: &[Duration]| Spread::of(durations.iter().copied());
        let Self { runs, asked, refused, changes, revoked, surprises, excused, .. } = self;
        writeln!(
            f,
            "{runs} runs: {asked} requests, {refused} refused; {changes} changes, {revoked} revocations"
        )?;
        writeln!(f, "  {surprises} sessions that ended by themselves, {excused} answers excused")?;
        writeln!(f, "  faults: {:?}", self.faults)?;
        writeln!(f, "  late while all was well: {}", spread(&self.late))?;
        writeln!(f, "  late in faults: {}", spread(&self.late_in_faults))?;
        writeln!(f, "  last 503 after a fault: {}", spread(&self.recoveries))?;
        write!(f, "  broken: {:?}", self.broken)
    }
}

/// How long all series together may take in the long form.
fn minutes() -> u64 {
    std::env::var("VESTIBULE_MINUTES").map_or(60, |minutes| minutes.parse().unwrap())
}

/// `VESTIBULE_SEED`, or any.
fn seed() -> u64 {
    std::env::var("VESTIBULE_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |seed| seed.parse().unwrap())
}

/// Runs one plan after the other, this part of all minutes; one in the short form. `plan` makes one of a
/// seed. Of the first that fails the smallest part is shown that still does.
pub(super) async fn hold(what: &str, part: f64, plan: impl Fn(u64) -> Plan) {
    let time = scaled(Duration::ZERO, Duration::from_secs(60 * minutes()).mul_f64(part));
    let (seed, begun, mut sum, mut failed) = (seed(), Instant::now(), Sum::default(), None);
    for number in 0.. {
        let plan = plan(seed.wrapping_add(number));
        let verdict = run(&plan).await;
        tell(&plan, &verdict);
        let broken = verdict.violations.first().map(|violation| violation.promise);
        sum.add(verdict);
        failed = failed.or(broken.map(|promise| (plan, promise)));
        if begun.elapsed() >= time {
            break;
        }
    }
    report("checker", format!("{what}: {sum}"));
    if let Some((plan, promise)) = failed {
        let smallest =
            shrink(&plan, promise, scaled(Duration::from_secs(60), Duration::from_secs(900))).await;
        panic!("{promise:?} is broken; once more: VESTIBULE_SCHEDULE=\"{smallest}\", all of it: \"{plan}\"");
    }
}
