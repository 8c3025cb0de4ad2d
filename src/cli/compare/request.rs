//! The arguments of `vestibule compare`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;

use crate::cli::threshold::Threshold;
use crate::config::staging::Staging;
use crate::config::{self, Scenario};
use crate::lab::compare::{Event, Plan, SessionMode, Stubs, Target};
use crate::lab::load;

/// The default scenario, reduced so that it fits a small machine and a short time.
const SCENARIO: &str = "dify-chat";
const USERS: u32 = 48;
const WARM_UP: Duration = Duration::from_secs(2);
const DURATION: Duration = Duration::from_secs(10);
const MODES: [SessionMode; 3] = [SessionMode::Local, SessionMode::Sticky, SessionMode::Shared];
const EVENTS: [Event; 2] = [Event::ScaleOut, Event::InstanceKilled];

#[derive(Debug, Args)]
pub(in crate::cli) struct CompareArgs {
    /// Your own instances (see config/applications/own.toml); default: stub instances, started for the purpose
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What users do: dify-chat, console-burst, plain-api or a scenario file; default: dify-chat, made smaller
    #[arg(long, value_name = "NAME|FILE")]
    scenario: Option<String>,
    /// Modes, the first of which the others are compared with: local, sticky, shared, shared-uncached,
    /// shared-synchronous; default: as the scenario says, or local,sticky,shared
    #[arg(long, value_delimiter = ',', value_parser = mode)]
    modes: Vec<SessionMode>,
    /// What happens meanwhile, in this order: scale-out, instance-killed, rolling-restart, store-failover, hot-spot,
    /// or none; default: as the scenario says, or scale-out,instance-killed
    #[arg(long, value_delimiter = ',', value_parser = event)]
    events: Vec<OptionalEvent>,
    /// How often each mode runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long actions are counted in each run, such as 30s; default: as the scenario says
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Users instead of those of the scenario
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    users: Option<u32>,
    /// Stub instances; default: as the scenario says, or 4
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64), conflicts_with = "config")]
    instances: Option<u32>,
    /// The same seed makes the same decisions; default: that of the baseline, or by chance
    #[arg(long)]
    seed: Option<u64>,
    /// Where the report is written; default: compare-YYYYmmdd-HHMMSS
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Exit with 10 if a mode comes to this on average over the rounds, such as "lost > 1%", or only this mode, such as
    /// "shared lost > 0%"; also failed (%), rate (/s), mean, p50, p95, p99 and first_event (ms or s), and several times
    #[arg(long, value_name = "LIMIT", value_parser = Threshold::parse)]
    pub(super) fail_if: Vec<Threshold>,
    /// The comparison.json of an earlier report: exit 10 when a figure has become worse
    #[arg(long, value_name = "FILE")]
    pub(super) baseline: Option<PathBuf>,
}

/// An event or the word `none`.
#[derive(Debug, Clone, Copy)]
struct OptionalEvent(Option<Event>);

impl CompareArgs {
    /// Reads the files that the arguments name. The seed defaults to that of an `earlier` comparison. Blocks.
    pub(super) fn plan(self, earlier: Option<u64>) -> anyhow::Result<Plan> {
        let (scenario, scenario_text) = self.read_scenario()?;
        let (modes, events) = (self.modes(&scenario.staging), self.events(&scenario.staging));
        let stranger = self.fail_if.iter().filter_map(|limit| limit.mode).find(|mode| !modes.contains(mode));
        if let Some(mode) = stranger {
            bail!("--fail-if names the mode {}, which is not compared", mode.as_str());
        }
        let seed = self.seed.or(earlier).unwrap_or_else(|| fastrand::u64(..1_000_000));
        Ok(Plan {
            target: self.target(&scenario.staging)?,
            store_delay: scenario.staging.store_delay,
            scenario,
            scenario_text,
            command: self.command(seed, &modes, &events),
            modes,
            events,
            rounds: self.rounds,
            seed,
        })
    }

    fn read_scenario(&self) -> anyhow::Result<(Scenario, String)> {
        let name = self.scenario.as_deref().unwrap_or(SCENARIO);
        let (mut scenario, mut text) = load::scenario(name)?;
        if self.scenario.is_none() {
            scenario.users.count = USERS;
            (scenario.warm_up, scenario.duration) = (WARM_UP, DURATION);
        }
        scenario.users.count = self.users.unwrap_or(scenario.users.count);
        scenario.duration = self.duration.unwrap_or(scenario.duration);
        let Scenario { users, warm_up, duration, .. } = &scenario;
        text = format!(
            "# Here with {} users, {warm_up:?} of warming up and {duration:?} that count.\n\n{text}",
            users.count
        );
        Ok((scenario, text))
    }

    /// The modes of the arguments, else of the scenario, else the default; without duplicates.
    fn modes(&self, staging: &Staging) -> Vec<SessionMode> {
        let mut modes = self.modes.clone();
        if modes.is_empty() {
            modes = staging.modes.iter().filter_map(|mode| SessionMode::parse(mode)).collect();
        }
        if modes.is_empty() {
            modes = MODES.to_vec();
        }
        keep_first(&mut modes);
        modes
    }

    fn events(&self, staging: &Staging) -> Vec<Event> {
        let wished = || staging.events.as_deref().map(Event::of_names);
        let mut events: Vec<Event> = match self.events.as_slice() {
            [] => wished().unwrap_or_else(|| EVENTS.to_vec()),
            asked => asked.iter().filter_map(|event| event.0).collect(),
        };
        keep_first(&mut events);
        events
    }

    fn target(&self, staging: &Staging) -> anyhow::Result<Target> {
        let Some(path) = &self.config else {
            let mut stubs = Stubs::default().staged(&staging.stubs);
            stubs.count = self.instances.map_or(stubs.count, |count| count as usize);
            return Ok(Target::Stubs(stubs));
        };
        if self.scenario.is_none() {
            bail!(
                "your own instances need a scenario that tells what their users do: give it with --scenario"
            );
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Target::Own(config::parse_application(&text, &path.display().to_string())?))
    }

    /// The command line that reproduces the comparison.
    fn command(&self, seed: u64, modes: &[SessionMode], events: &[Event]) -> String {
        let modes: Vec<_> = modes.iter().map(|mode| mode.as_str()).collect();
        let events: Vec<_> = events.iter().map(|event| event.as_str()).collect();
        let events = if events.is_empty() { "none".to_owned() } else { events.join(",") };
        let mut command = "vestibule compare".to_owned();
        let mut add = |option: &str, value: Option<String>| {
            if let Some(value) = value {
                command.push_str(&format!(" --{option} {value}"));
            }
        };
        let path = |path: &Path| path.display().to_string();
        add("config", self.config.as_deref().map(path));
        add("scenario", self.scenario.clone());
        add("modes", Some(modes.join(",")));
        add("events", Some(events));
        add("rounds", Some(self.rounds.to_string()));
        add("duration", self.duration.map(|duration| format!("{}ms", duration.as_millis())));
        add("users", self.users.map(|users| users.to_string()));
        add("instances", self.instances.map(|count| count.to_string()));
        add("seed", Some(seed.to_string()));
        command
    }
}

/// Removes duplicates, keeping the first occurrence.
fn keep_first<T: PartialEq + Copy>(items: &mut Vec<T>) {
    let mut seen = Vec::new();
    items.retain(|item| {
        let is_new = !seen.contains(item);
        seen.push(*item);
        is_new
    });
}

fn mode(text: &str) -> anyhow::Result<SessionMode> {
    let known = || SessionMode::ALL.map(SessionMode::as_str).join(", ");
    SessionMode::parse(text).ok_or_else(|| anyhow!("not a mode; known: {}", known()))
}

fn event(text: &str) -> anyhow::Result<OptionalEvent> {
    let known = || Event::ALL.map(Event::as_str).join(", ");
    match text {
        "none" => Ok(OptionalEvent(None)),
        _ => match Event::parse(text) {
            Some(event) => Ok(OptionalEvent(Some(event))),
            None => Err(anyhow!("not an event; known: none, {}", known())),
        },
    }
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration = config::duration(text).filter(|duration| !duration.is_zero());
    duration.context("not a time: write a whole number and ms, s, m or h, such as 30s")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
        Line::try_parse_from([&["compare"], arguments].concat())?.args.plan(None)
    }

    #[test]
    fn without_arguments_three_modes_meet_a_scale_out_and_a_kill() {
        let plan = plan(&[]).unwrap();
        assert_eq!(plan.modes, [SessionMode::Local, SessionMode::Sticky, SessionMode::Shared]);
        assert_eq!(plan.events, [Event::ScaleOut, Event::InstanceKilled]);
        assert_eq!((plan.rounds, plan.scenario.users.count), (3, USERS));
    }

    #[test]
    fn the_command_that_is_told_makes_the_same_plan() {
        let first =
            plan(&["--modes", "shared,local,shared", "--events", "none", "--duration", "3s", "--users", "7"])
                .unwrap();
        let words: Vec<_> = first.command.split(' ').skip(2).collect();
        let again = plan(&words).unwrap();
        assert_eq!((again.seed, again.modes, again.events), (first.seed, first.modes, first.events));
        assert_eq!(again.scenario, first.scenario);
        assert_eq!(again.command, first.command);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for arguments in
            [["--modes", "stuck"], ["--events", "rain"], ["--duration", "0s"], ["--scenario", "none"]]
        {
            assert!(plan(&arguments).is_err(), "{arguments:?}");
        }
    }
}
