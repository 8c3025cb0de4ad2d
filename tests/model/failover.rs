//! One session that is revoked while primaries change (R3).
//!
//! A primary and two replicas, each a copy of what its primary had at some time. Sentinels may choose any replica that
//! they know and that may be chosen, however old its copy is and whether or not the primary is still there; a former
//! primary goes on as one for whoever believes in it, until it is made a replica and copies the new one. Two
//! vestibules: the one that revokes, and one that runs beside it or starts at some time. Each tells a primary
//! that it has not met what it remembers, notes at the store that it has, waits for the notes of all others, and only
//! then honours what that primary has. What it writes may be lost with the primary, its note included.
//!
//! What is honoured at a former primary, by who has not found out yet, is not judged: that has an end of its own. A
//! vestibule is never taken for gone while it lives: the wait for it has no end here, but a second in reality.

mod revoke;
mod rules;
mod state;
mod steps;

pub(crate) use rules::Rules;

use crate::explore::{breaks, holds};

use state::{Bounds, Other, Third};
use steps::Failover;

const NONE: Bounds = Bounds { failovers: 0, cuts: 0, returns: 0, crashes: 0, lost_answers: 0 };
const ONE_FAILOVER: Bounds = Bounds { failovers: 1, cuts: 1, returns: 1, crashes: 1, ..NONE };
const A_CUT: Bounds = Bounds { failovers: 1, cuts: 1, ..NONE };
const A_RETURN: Bounds = Bounds { failovers: 1, returns: 1, ..NONE };
const TWO_FAILOVERS: Bounds = Bounds { failovers: 2, returns: 1, ..NONE };

fn failover(rules: Rules, third: Third, other: Other, bounds: Bounds) -> Failover {
    Failover { rules, third, other, bounds, are_notes_copied: true }
}

#[test]
fn what_is_revoked_for_good_or_remembered_is_not_honoured_after_a_failover() {
    let (calm, crash) = (Bounds { crashes: 0, ..ONE_FAILOVER }, Bounds { crashes: 1, ..A_CUT });
    holds("failover", &failover(Rules::ALL, Third::Ordinary, Other::RunsBeside, calm));
    holds("failover, crash", &failover(Rules::ALL, Third::Ordinary, Other::RunsBeside, crash));
}

#[test]
fn nor_beside_a_backup_that_is_never_chosen() {
    holds("failover, backup", &failover(Rules::ALL, Third::Backup, Other::RunsBeside, ONE_FAILOVER));
}

#[test]
fn nor_beside_a_replica_that_the_sentinels_do_not_know_yet() {
    let bounds = Bounds { crashes: 0, ..ONE_FAILOVER };
    holds("failover, unlisted", &failover(Rules::ALL, Third::Unlisted, Other::RunsBeside, bounds));
}

#[test]
fn nor_by_a_vestibule_that_starts_meanwhile() {
    holds("start and cut", &failover(Rules::ALL, Third::Ordinary, Other::StartsLater, A_CUT));
    holds("start and return", &failover(Rules::ALL, Third::Ordinary, Other::StartsLater, A_RETURN));
}

#[test]
fn nor_by_one_that_starts_beside_an_unusual_replica() {
    holds("start, backup", &failover(Rules::ALL, Third::Backup, Other::StartsLater, A_RETURN));
    holds("start, unlisted", &failover(Rules::ALL, Third::Unlisted, Other::StartsLater, A_CUT));
}

#[test]
fn a_server_that_becomes_the_primary_again_is_told_again() {
    for other in [Other::RunsBeside, Other::StartsLater] {
        let name = format!("two failovers, {other:?}");
        holds(&name, &failover(Rules::ALL, Third::Missing, other, TWO_FAILOVERS));
    }
}

#[test]
fn a_number_of_replicas_does_not_say_which_have_confirmed() {
    let rules = Rules { identifies_replicas: false, ..Rules::ALL };
    breaks("replicas counted", &failover(rules, Third::Backup, Other::RunsBeside, ONE_FAILOVER), "R3", 6);
}

#[test]
fn a_replica_that_has_gone_before_sentinels_knew_of_it_must_not_be_forgotten() {
    let rules = Rules { remembers_followers: false, ..Rules::ALL };
    breaks(
        "followers forgotten",
        &failover(rules, Third::Unlisted, Other::RunsBeside, ONE_FAILOVER),
        "R3",
        8,
    );
}

#[test]
fn a_vestibule_that_starts_must_wait_for_the_others() {
    let rules = Rules { waits_for_others: false, ..Rules::ALL };
    let model = failover(rules, Third::Ordinary, Other::StartsLater, A_RETURN);
    breaks("no waiting", &model, "R3, remembered", 10);
}

#[test]
fn no_answer_is_not_the_answer_that_there_are_no_others() {
    let rules = Rules { minds_silence: false, ..Rules::ALL };
    let bounds = Bounds { lost_answers: 1, ..A_RETURN };
    let model = failover(rules, Third::Ordinary, Other::StartsLater, bounds);
    breaks("silence for an answer", &model, "R3, remembered", 10);
}

/// As with sessions of several primaries, of which all are buried before any is remembered.
#[test]
fn what_was_buried_must_be_remembered_before_the_primary_can_be_another() {
    let rules = Rules { remembers_at_once: false, ..Rules::ALL };
    let model = failover(rules, Third::Ordinary, Other::RunsBeside, ONE_FAILOVER);
    breaks("remembered late", &model, "R3, remembered", 13);
}

#[test]
fn the_run_of_a_server_does_not_say_which_data_it_was_told() {
    let rules = Rules { names_promotions: false, ..Rules::ALL };
    let model = failover(rules, Third::Missing, Other::StartsLater, TWO_FAILOVERS);
    breaks("named by runs", &model, "R3, remembered", 13);
}

/// What the rules leave open: the new primary may know as little of the vestibules as of the session.
#[test]
fn a_vestibule_whose_note_was_lost_is_waited_for_by_nobody() {
    let model = failover(Rules::ALL, Third::Ordinary, Other::StartsLater, A_RETURN);
    breaks("note lost", &Failover { are_notes_copied: false, ..model }, "R3, remembered", 10);
}
