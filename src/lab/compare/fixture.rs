//! Comparisons with synthetic figures, for tests.

use super::{Comparison, Figure, Machine, ModeResult, Oracle, Run, Setup, estimate};
use crate::lab::load::LoadResult;

/// A mode's name and the values of each round.
pub(super) type Mode<'a> = (&'a str, &'a [(Figure, [f64; 3])]);

/// A comparison with these figures in its first `rounds` rounds.
pub(super) fn comparison(rounds: usize, modes: &[Mode<'_>]) -> Comparison {
    let results = modes.iter().map(|(mode, figures)| ModeResult {
        mode: (*mode).to_owned(),
        figures: figures.iter().map(|(figure, values)| (*figure, estimate(&values[..rounds]))).collect(),
    });
    let runs = (0..rounds).flat_map(|round| {
        modes.iter().map(move |(mode, figures)| Run {
            mode: (*mode).to_owned(),
            round: round as u32 + 1,
            load: load(),
            events: Vec::new(),
            oracle: Some(Oracle { lost: 0, agrees: true }),
            figures: figures.iter().map(|(figure, values)| (*figure, values[round])).collect(),
            idle_shares: Vec::new(),
        })
    });
    Comparison {
        version: Comparison::VERSION,
        created: "2026-11-23T10:00:00Z".to_owned(),
        program: "0.1.0".to_owned(),
        machine: Machine {
            processor: "EPYC".to_owned(),
            cores: 4,
            memory_mib: 16_384,
            system: "Linux 6.1".to_owned(),
        },
        setup: setup(rounds as u32),
        modes: results.collect(),
        contrasts: Vec::new(),
        verdict: Default::default(),
        published: None,
        runs: runs.collect(),
    }
}

fn setup(rounds: u32) -> Setup {
    Setup {
        scenario: "dify-chat".to_owned(),
        scenario_text: String::new(),
        seed: 7,
        rounds,
        target: "4 stub instances".to_owned(),
        store: "a Redis of its own".to_owned(),
        command: "vestibule compare".to_owned(),
        configurations: Vec::new(),
    }
}

fn load() -> LoadResult {
    LoadResult {
        scenario: "dify-chat".to_owned(),
        seed: 7,
        asked_rate: Some(40.0),
        seconds: 45.0,
        ..LoadResult::default()
    }
}
