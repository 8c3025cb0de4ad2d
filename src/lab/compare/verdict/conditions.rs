//! The conditions of the verdict, and what was not measured.

use std::collections::BTreeSet;

use super::decision::is_disputed;
use super::listed;
use crate::lab::compare::{Comparison, Figure, number};

pub(super) fn conditions(comparison: &Comparison) -> Vec<String> {
    let mut conditions = vec![load(comparison), place(comparison), events(comparison), machine(comparison)];
    conditions.push(oracle(comparison));
    conditions.extend(unmeasured(comparison));
    conditions.extend(idle(comparison));
    conditions.push(method(comparison));
    conditions
}

fn load(comparison: &Comparison) -> String {
    let setup = &comparison.setup;
    let rounds = if setup.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", setup.rounds) };
    let of_first = comparison.runs.first().map(|run| match run.load.asked_rate {
        Some(rate) => {
            format!(", {} actions asked for per second during {} s", number(rate), number(run.load.seconds))
        }
        None => format!(", users who think between actions, during {} s", number(run.load.seconds)),
    });
    let of_first = of_first.unwrap_or_default();
    format!("Load: scenario {}, seed {}, {rounds} of each mode{of_first}.", setup.scenario, setup.seed)
}

fn place(comparison: &Comparison) -> String {
    format!("Tried on {}; shared sessions were kept in {}.", comparison.setup.target, comparison.setup.store)
}

fn events(comparison: &Comparison) -> String {
    let Some(run) =
        comparison.runs.iter().max_by_key(|run| run.events.len()).filter(|run| !run.events.is_empty())
    else {
        return "Nothing happened to the instances or the store meanwhile, which is when the modes differ least."
            .to_owned();
    };
    let events = run.events.iter().map(|event| {
        let subject = if event.subject.is_empty() { String::new() } else { format!(" ({})", event.subject) };
        format!("{}{subject} at {} s", event.name, number(event.at))
    });
    format!("Meanwhile: {}.", listed(&events.collect::<Vec<_>>()))
}

fn machine(comparison: &Comparison) -> String {
    let machine = &comparison.machine;
    format!(
        "Machine: {}, {} cores, {} MiB of memory, {}; load and proxy shared it.",
        machine.processor, machine.cores, machine.memory_mib, machine.system
    )
}

fn oracle(comparison: &Comparison) -> String {
    let told: Vec<_> = comparison.runs.iter().filter_map(|run| run.oracle).collect();
    let (told_by, all) = (told.len(), comparison.runs.len());
    if told_by == 0 {
        "The instances do not tell which sessions they lost: only the users' own count is known.".to_owned()
    } else if is_disputed(comparison) {
        let disputed = told.iter().filter(|oracle| !oracle.agrees).count();
        format!(
            "In {disputed} of {told_by} runs the instances counted other lost sessions than the users: trust no figure \
             of lost sessions before that is explained."
        )
    } else {
        format!("The instances counted the same lost sessions as the users, in {told_by} of {all} runs.")
    }
}

/// The missing figures, each with the modes that lack it.
fn unmeasured(comparison: &Comparison) -> Option<String> {
    let withheld = comparison.withheld();
    let is_told = |figure: &Figure| withheld.iter().all(|(other, _)| other != figure);
    let missing = Figure::ALL.into_iter().filter(is_told).filter_map(|figure| {
        let lacking = comparison.modes.iter().filter(|mode| mode.figure(figure).is_none());
        let lacking: Vec<String> = lacking.map(|mode| mode.mode.clone()).collect();
        match lacking.len() {
            0 => None,
            all if all == comparison.modes.len() => Some(figure.title().to_lowercase()),
            _ => Some(format!("{} ({})", figure.title().to_lowercase(), lacking.join(", "))),
        }
    });
    let missing: Vec<String> = missing.collect();
    (!missing.is_empty()).then(|| format!("Not measured: {}.", missing.join("; ")))
}

/// The idle shares that costs per request exclude, and the costs that are withheld entirely.
fn idle(comparison: &Comparison) -> Option<String> {
    let withheld = comparison.withheld().into_iter().map(|(figure, share)| {
        format!("{} (up to {} %)", figure.title().to_lowercase(), number(share * 100.0))
    });
    let withheld: Vec<String> = withheld.collect();
    if !withheld.is_empty() {
        return Some(format!(
            "Not told, as more than a fifth of it is there without any request: {}; more requests a second would show it.",
            listed(&withheld)
        ));
    }
    comparison
        .runs
        .iter()
        .any(|run| !run.idle_shares.is_empty())
        .then(|| "Costs by request leave out what is there without any, such as health checks.".to_owned())
}

fn method(comparison: &Comparison) -> String {
    let rounds: BTreeSet<u32> = comparison.runs.iter().map(|run| run.round).collect();
    if rounds.len() < 2 {
        return "With a single round there is no interval: how far the next round would be from it is not known."
            .to_owned();
    }
    format!(
        "Intervals hold with 95 % confidence, each for itself, by Student's t over {} rounds; differences are taken \
         round by round. A difference is called shown when its interval leaves out zero, and too little to matter up \
         to 5 %, 0.1 points of a percentage and 0.02 of a ratio.",
        rounds.len()
    )
}
