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

use super::{run, signals};
use crate::lab::compare::{self, Compared, Comparison, Regression, Status};
use crate::lab::report;

pub(super) use request::CompareArgs;

/// A figure is worse than in the baseline.
const EXIT_WORSE: u8 = 10;

/// Compares, reports, and judges.
pub(super) fn run(args: CompareArgs) -> anyhow::Result<ExitCode> {
    let baseline = args.baseline.as_deref().map(read_baseline).transpose()?;
    let directory = args.out.clone().unwrap_or_else(new_directory);
    report::vacant(&directory)?;
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
        conclude(&compared?, baseline.as_ref(), &directory)
    })
}

/// Writes and prints what came out; the exit code says how to take it.
fn conclude(
    Compared { comparison, objections }: &Compared,
    baseline: Option<&Comparison>,
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
    let Some(baseline) = baseline else { return Ok(ExitCode::SUCCESS) };
    let worse = compare::regressions(baseline, comparison)?;
    if worse.is_empty() {
        writeln!(out, "no figure is worse than in the baseline")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "worse than in the baseline:")?;
    worse.iter().try_for_each(|regression| writeln!(out, "  {}", told(regression)))?;
    Ok(ExitCode::from(EXIT_WORSE))
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

/// In the working directory, named by the time in UTC.
fn new_directory() -> PathBuf {
    jiff::Timestamp::now().strftime("compare-%Y%m%d-%H%M%S").to_string().into()
}
