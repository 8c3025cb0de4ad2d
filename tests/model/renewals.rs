//! One session, its cache, and a Redis that reports changes once per turn of its event loop (R1, R2, R4).
//!
//! In a turn commands of several connections are run in any order. At its end each changed key is reported once to
//! the connection that listens, unless that connection was the last to change the key and does not want to hear of
//! its own changes. Reports arrive in order, replies on other connections whenever they like. Time passes in ticks at
//! any point; nothing else has a time. A request can come at any point, so it is no step: in every state what the
//! cache would tell is judged. Left out: the order of commands of one writing connection, entries that are removed
//! for no reason, look-ups that were replaced by newer ones and are kept by nobody.
//!
//! It is assumed that reports are lost as a suffix: a connection that has lost one brings no later one either.

mod rules;
mod state;
mod steps;

pub(crate) use rules::Rules;

use crate::explore::{breaks, holds};

use state::Bounds;
use steps::Cache;

const CALM: Bounds = Bounds { changes: 2, renewals: 2, faults: 0, swaps: 0 };
const FAULTS: Bounds = Bounds { changes: 2, renewals: 0, faults: 1, swaps: 0 };
const FAULT_AND_RENEWAL: Bounds = Bounds { changes: 1, renewals: 1, faults: 1, swaps: 0 };
const SWAP: Bounds = Bounds { changes: 1, renewals: 1, faults: 0, swaps: 1 };
const FAULT_AND_SWAP: Bounds = Bounds { changes: 0, renewals: 0, faults: 1, swaps: 1 };
const SWAPS: Bounds = Bounds { changes: 0, renewals: 0, faults: 0, swaps: 2 };
const TWO_FAULTS: Bounds = Bounds { changes: 1, renewals: 0, faults: 2, swaps: 0 };

fn cache(rules: Rules, bounds: Bounds) -> Cache {
    Cache { rules, bounds }
}

#[test]
fn no_change_is_lost_to_renewals_and_look_ups() {
    holds("renewals", &cache(Rules::ALL, CALM));
}

#[test]
fn faults_make_nothing_older_than_a_lease() {
    holds("renewals, a fault", &cache(Rules::ALL, FAULTS));
    holds("renewals, a fault and a renewal", &cache(Rules::ALL, FAULT_AND_RENEWAL));
}

#[test]
fn two_faults_make_nothing_older_than_a_lease() {
    holds("renewals, two faults", &cache(Rules::ALL, TWO_FAULTS));
}

#[test]
fn databases_that_are_swapped_are_noticed() {
    holds("renewals, a swap", &cache(Rules::ALL, SWAP));
    holds("renewals, a fault and a swap", &cache(Rules::ALL, FAULT_AND_SWAP));
}

/// What the true rules leave open. Two swaps between two beats bring back the data that the beats are in, and what was
/// read between them is kept.
#[test]
fn data_that_are_swapped_there_and_back_between_two_beats_are_not_noticed() {
    breaks("renewals, two swaps", &cache(Rules::ALL, SWAPS), "R1", 11);
}

#[test]
fn a_look_up_that_sees_where_the_beats_are_notices_any_swap() {
    holds("renewals, two swaps, marked", &cache(Rules { reads_marks: true, ..Rules::ALL }, SWAPS));
}

#[test]
fn renewals_on_the_listening_connection_hide_changes() {
    breaks(
        "renewals on the listening connection",
        &cache(Rules { writes_apart: false, ..Rules::ALL }, CALM),
        "R1",
        17,
    );
}

#[test]
fn an_answer_from_before_a_report_must_not_be_kept() {
    breaks(
        "invalidated answers kept",
        &cache(Rules { drops_invalidated: false, ..Rules::ALL }, CALM),
        "R1",
        11,
    );
}

#[test]
fn a_beat_that_was_not_reported_proves_nothing() {
    breaks("lease by replies", &cache(Rules { waits_for_reports: false, ..Rules::ALL }, FAULTS), "R1", 8);
}

#[test]
fn a_lease_must_not_be_counted_from_the_report() {
    breaks(
        "lease from reports",
        &cache(Rules { counts_from_sending: false, ..Rules::ALL }, FAULTS),
        "R2",
        11,
    );
}

#[test]
fn a_beat_that_misses_the_one_before_must_not_be_ignored() {
    breaks(
        "missing beats ignored",
        &cache(Rules { minds_missing_beats: false, ..Rules::ALL }, SWAP),
        "R1",
        10,
    );
}

#[test]
fn a_new_connection_must_begin_a_generation() {
    breaks(
        "no generation with a connection",
        &cache(Rules { begins_anew: false, ..Rules::ALL }, FAULTS),
        "R1",
        12,
    );
}

#[test]
fn the_generation_must_be_taken_before_the_store_is_asked() {
    let rules = Rules { reads_generation_first: false, ..Rules::ALL };
    breaks("generation taken late", &cache(rules, FAULTS), "R1", 12);
}
