//! `vestibule compare`.

mod progress;
mod request;
mod table;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use tokio::sync::watch;

use super::threshold::{self, EXIT_BEYOND, Measure, Threshold};
use super::{run, signals};
use crate::lab::compare::{self, Compared, Comparison, Figure, ModeResult, Regression, Status};
use crate::lab::report;

pub(super) use request::CompareArgs;

/// Runs the comparison, writes the report, and checks the limits.
pub(super) fn run(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    let directory = args.out.clone().unwrap_or_else(new_directory);
    report::vacant(&directory)?;
    let limits = args.fail_if.clone();
    let plan = args.plan(baseline.as_ref().map(|baseline| baseline.setup.seed))?;
    run::block_on(async {
        let interrupted = signals::shutdown()?;
        let (status, watched) = watch::channel(Status::default());
        let compared = tokio::select! {
            compared = compare::compare(plan, &status) => compared,
            () = interrupted => bail!("interrupted: no report was written"),
            never = progress::show(watched) => match never {},
        };
        progress::clear();
        conclude(&compared?, baseline.as_ref(), &limits, &directory)
    })
}

/// Writes the report and prints a summary. Returns the exit code.
fn conclude(
    Compared { comparison, objections }: &Compared,
    baseline: Option<&Comparison>,
    limits: &[Threshold],
    directory: &Path,
) -> anyhow::Result<ExitCode> {
    let written = report::write(comparison, directory)?;
    let out = &mut io::stdout();
    table::print(comparison, out)?;
    writeln!(out, "\nreport: {}", written.html.display())?;
    if !objections.is_empty() {
        eprintln!("\nvestibule: the lost sessions that users met are not those that the instances refused:");
        objections.iter().for_each(|objection| eprintln!("  {objection}"));
        return Ok(ExitCode::FAILURE);
    }
    let passed = passed(comparison, limits);
    threshold::tell(&passed, out)?;
    let is_worse = baseline.map_or(Ok(false), |baseline| is_worse(baseline, comparison, out))?;
    Ok(if passed.is_empty() && !is_worse { ExitCode::SUCCESS } else { ExitCode::from(EXIT_BEYOND) })
}

/// Prints the regressions against the baseline. Returns whether there are any.
fn is_worse(baseline: &Comparison, comparison: &Comparison, out: &mut impl Write) -> anyhow::Result<bool> {
    let worse = compare::regressions(baseline, comparison)?;
    if worse.is_empty() {
        writeln!(out, "no figure is worse than in the baseline")?;
        return Ok(false);
    }
    writeln!(out, "worse than in the baseline:")?;
    worse.iter().try_for_each(|regression| writeln!(out, "  {}", told(regression)))?;
    Ok(true)
}

/// A line for each limit that a mode has exceeded.
fn passed(comparison: &Comparison, limits: &[Threshold]) -> Vec<String> {
    let modes = |limit: &Threshold| {
        let only = limit.mode.map(|mode| mode.as_str());
        comparison.modes.iter().filter(move |mode| only.is_none_or(|only| only == mode.mode))
    };
    let all = limits.iter().flat_map(|limit| modes(limit).map(move |mode| (limit, mode)));
    let passed = |(limit, mode): (&Threshold, &ModeResult)| {
        limit.passed(&mode.mode, mode.figure(figure(limit.measure)).map(|estimate| estimate.mean))
    };
    all.filter_map(passed).collect()
}

fn figure(measure: Measure) -> Figure {
    match measure {
        Measure::Lost => Figure::SessionsLost,
        Measure::Failed => Figure::ActionsFailed,
        Measure::Rate => Figure::ActionsPerSecond,
        Measure::Mean => Figure::LatencyMean,
        Measure::P50 => Figure::LatencyP50,
        Measure::P95 => Figure::LatencyP95,
        Measure::P99 => Figure::LatencyP99,
        Measure::FirstEvent => Figure::FirstTokenP50,
    }
}

fn told(Regression { mode, figure, old, new, difference }: &Regression) -> String {
    let unit = figure.unit();
    format!(
        "{mode}: {} {} -> {} (95 % of the difference: {} to {})",
        figure.title(),
        table::number(old.mean, unit.symbol()),
        table::number(new.mean, unit.symbol()),
        table::number(difference.low, ""),
        table::number(difference.high, unit.difference_symbol()),
    )
}

fn read_baseline(path: &Path) -> anyhow::Result<Comparison> {
    let text = fs::read(path).with_context(|| format!("cannot read the baseline {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| {
        format!("{} is no baseline: give the comparison.json of an earlier report", path.display())
    })
}

/// In the working directory, named by the UTC time.
fn new_directory() -> PathBuf {
    jiff::Timestamp::now().strftime("compare-%Y%m%d-%H%M%S").to_string().into()
}
