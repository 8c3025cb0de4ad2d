//! `vestibule load`.

mod summary;
mod watch;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::threshold::{self, EXIT_BEYOND, Measure, Threshold};
use super::{run, signals};
use crate::config::scenario::{Arrival, Spacing};
use crate::config::{self, Scenario};
use crate::lab::load::{BUILT_IN, Load, LoadResult, Progress, Target, TargetOptions, scenario};

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// What users do: a scenario that --list shows, or a file of your own
    #[arg(required_unless_present = "list")]
    scenario: Option<String>,
    /// Base URL of what is asked, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", required_unless_present = "list")]
    target: Option<String>,
    /// Show the scenarios that come with the program
    #[arg(long, exclusive = true)]
    list: bool,
    /// The same scenario and seed make the same decisions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Actions per second, whether or not users are free; 0: users act when they have thought
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How many users there are
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    users: Option<u32>,
    /// How long actions are counted, such as 30s or 5m
    #[arg(long, value_parser = some_time)]
    duration: Option<Duration>,
    /// How long users come, and what they do is not counted
    #[arg(long, value_parser = time)]
    warm_up: Option<Duration>,
    /// Speak HTTP/2; without TLS the target must know it
    #[arg(long)]
    http2: bool,
    /// Trust the authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long)]
    insecure: bool,
    /// Threads that the users are spread over; default: as many as the rate needs
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Exit with 10 if it comes to this, such as "lost > 1%", "failed > 0.5%", "p99 > 2s" or "rate < 50/s"; also mean,
    /// p50, p95 and first_event, and several times
    #[arg(long, value_name = "LIMIT", value_parser = threshold::without_mode)]
    fail_if: Vec<Threshold>,
    /// Write the whole result into this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs one load test, or lists the scenarios.
pub(super) fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    if args.list {
        list(&mut io::stdout())?;
        return Ok(ExitCode::SUCCESS);
    }
    run::block_on(async {
        let load = args.load()?;
        // Created before the load, so that an unwritable path fails at once.
        let json = args.json.as_ref().map(create).transpose()?;
        let stop = CancellationToken::new();
        let (interrupted, stopped) = (signals::shutdown()?, stop.clone());
        tokio::spawn(async move {
            interrupted.await;
            stopped.cancel();
        });
        let (progress, watched) = tokio::sync::watch::channel(Progress::default());
        let watching = tokio::spawn(watch::show(watched));
        let result = load.run(progress, stop).await;
        watching.abort();
        watch::clear();
        let result = result?;
        summary::write(&result, &mut io::stdout())?;
        json.map(|file| save(&result, file)).transpose()?;
        let passed: Vec<String> = args
            .fail_if
            .iter()
            .filter_map(|limit| limit.passed("", measured(&result, limit.measure)))
            .collect();
        threshold::tell(&passed, &mut io::stdout())?;
        Ok(if passed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_BEYOND) })
    })
}

impl LoadArgs {
    fn load(&self) -> anyhow::Result<Load> {
        let name = self.scenario.as_deref().context("no scenario")?;
        let (mut scenario, _) = scenario(name)?;
        self.adjust(&mut scenario);
        let url = self.target.as_deref().context("no target")?;
        let options = TargetOptions { http2: self.http2, ca: self.ca.clone(), insecure: self.insecure };
        Ok(Load { target: Target::new(url, &options)?, scenario, seed: self.seed, threads: self.threads })
    }

    fn adjust(&self, scenario: &mut Scenario) {
        scenario.users.count = self.users.unwrap_or(scenario.users.count);
        scenario.duration = self.duration.unwrap_or(scenario.duration);
        scenario.warm_up = self.warm_up.unwrap_or(scenario.warm_up);
        let spacing = match scenario.arrival {
            Arrival::Open { spacing, .. } => spacing,
            Arrival::Closed => Spacing::Poisson,
        };
        match self.rate {
            Some(rate) if rate > 0.0 => scenario.arrival = Arrival::Open { rate, spacing },
            Some(_) => scenario.arrival = Arrival::Closed,
            None => {}
        }
    }
}

/// `None` when nothing was measured.
fn measured(result: &LoadResult, measure: Measure) -> Option<f64> {
    let ratio = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    let latency = (result.all.latency.count > 0).then_some(&result.all.latency);
    match measure {
        Measure::Lost => ratio(result.sessions.lost as f64 * 100.0, result.sessions.begun as f64),
        Measure::Failed => ratio(result.all.failed as f64 * 100.0, result.all.done as f64),
        Measure::Rate => ratio(result.all.done.saturating_sub(result.all.failed) as f64, result.seconds),
        Measure::Mean => latency.map(|latency| latency.mean),
        Measure::P50 => latency.map(|latency| latency.p50),
        Measure::P95 => latency.map(|latency| latency.p95),
        Measure::P99 => latency.map(|latency| latency.p99),
        Measure::FirstEvent => (result.first_token.count > 0).then_some(result.first_token.p50),
    }
}

fn list(out: &mut impl Write) -> anyhow::Result<()> {
    let width = BUILT_IN.iter().map(|built_in| built_in.name.len()).max().unwrap_or_default();
    for built_in in BUILT_IN {
        let (scenario, _) = scenario(built_in.name)?;
        writeln!(out, "{:width$}  {}", scenario.name, scenario.about)?;
    }
    Ok(())
}

fn create(path: &PathBuf) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn save(result: &LoadResult, file: File) -> anyhow::Result<()> {
    let mut file = BufWriter::new(file);
    serde_json::to_writer(&mut file, result).context("cannot write the result")?;
    file.flush().context("cannot write the result")
}

fn rate(text: &str) -> anyhow::Result<f64> {
    let rate: f64 = text.parse()?;
    ensure!((0.0..=1e6).contains(&rate), "it is not from 0 to 1000000");
    Ok(rate)
}

fn time(text: &str) -> anyhow::Result<Duration> {
    config::duration(text).ok_or_else(|| anyhow!("write a whole number and ms, s, m or h, such as 30s"))
}

fn some_time(text: &str) -> anyhow::Result<Duration> {
    let time = time(text)?;
    ensure!(!time.is_zero(), "it must be longer than nothing");
    Ok(time)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LoadArgs,
    }

    fn load(line: &str) -> Load {
        Line::try_parse_from(line.split(' ')).unwrap().args.load().unwrap()
    }

    #[test]
    fn the_command_line_changes_the_scenario() {
        let load =
            load("load plain-api --target http://a --users 7 --duration 3s --warm-up 0s --rate 2.5 --seed 9");
        assert_eq!((load.scenario.users.count, load.seed), (7, 9));
        assert_eq!((load.scenario.duration, load.scenario.warm_up), (Duration::from_secs(3), Duration::ZERO));
        assert_eq!(load.scenario.arrival, Arrival::Open { rate: 2.5, spacing: Spacing::Poisson });
    }

    #[test]
    fn a_rate_of_zero_is_the_closed_model() {
        assert_eq!(load("load plain-api --target http://a --rate 0").scenario.arrival, Arrival::Closed);
        let open = load("load dify-chat --target http://a --rate 3").scenario.arrival;
        assert_eq!(open, Arrival::Open { rate: 3.0, spacing: Spacing::Poisson });
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in ["--rate -1", "--rate nan", "--users 0", "--duration 0s", "--duration 5", "--threads 0"]
        {
            let line = format!("load plain-api --target http://a {wrong}");
            assert!(Line::try_parse_from(line.split(' ')).is_err(), "{wrong}");
        }
        assert!(Line::try_parse_from(["load", "plain-api"]).is_err());
    }

    #[test]
    fn every_scenario_is_listed_with_what_it_is_about() {
        let mut out = Vec::new();
        list(&mut out).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.lines().count(), BUILT_IN.len());
        assert!(out.contains("plain-api           Requests without sessions at a steady rate\n"), "{out}");
    }
}
