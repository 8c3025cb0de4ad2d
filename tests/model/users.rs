//! The sessions of one user that are revoked together, while one of them is looked up.
//!
//! A look-up reads the session and asks the time of the store, in some order; notes that it is the user's, and when it
//! was read; and only then honours it. A revocation asks the time, marks the user with it and lists what was noted, in
//! one; buries what it lists; waits until no cache can hold it any more; buries what was noted late; and answers. The
//! session may change its user in the meantime, and three vestibules look it up. One of them may end at any point
//! without a word, and so may the primary, of which the next one has everything.
//!
//! Time is the order of events: every event that has a time is later than the one before.

mod rules;
mod state;
mod steps;

pub(crate) use rules::Rules;

use crate::explore::{breaks, holds};

use state::Bounds;
use steps::Users;

const CALM: Bounds = Bounds { crashes: 0, failovers: 0, changes: 0 };
const A_CRASH: Bounds = Bounds { crashes: 1, ..CALM };
const A_FAILOVER: Bounds = Bounds { failovers: 1, ..CALM };
const A_CHANGE: Bounds = Bounds { changes: 1, ..CALM };

fn users(rules: Rules, bounds: Bounds) -> Users {
    Users { rules, bounds }
}

#[test]
fn no_session_that_was_honoured_or_being_read_outlives_its_user() {
    holds("users", &users(Rules::ALL, CALM));
}

#[test]
fn nor_when_its_vestibule_ends_without_a_word() {
    holds("users, a crash", &users(Rules::ALL, A_CRASH));
}

#[test]
fn nor_is_the_session_of_somebody_else_ended() {
    holds("users, another user", &users(Rules::ALL, A_CHANGE));
}

/// What the rules leave open: the time at which the former primary was read compares with none of the next one.
#[test]
fn a_look_up_over_a_failover_is_not_told_from_a_later_one() {
    breaks("users, a failover", &users(Rules::ALL, A_FAILOVER), "read", 10);
}

#[test]
fn a_session_must_be_noted_before_it_is_honoured() {
    let rules = Rules { notes_first: false, ..Rules::ALL };
    breaks("notes first left out", &users(rules, CALM), "honoured", 8);
}

#[test]
fn what_was_read_before_the_mark_must_not_be_honoured() {
    let rules = Rules { compares_times: false, ..Rules::ALL };
    breaks("compares times left out", &users(rules, CALM), "read", 9);
}

#[test]
fn what_is_read_after_the_mark_must_not_be_ended() {
    let rules = Rules { spares_later: false, ..Rules::ALL };
    breaks("spares later left out", &users(rules, CALM), "later", 6);
}

#[test]
fn what_was_noted_late_must_be_buried_as_well() {
    let rules = Rules { passes_twice: false, ..Rules::ALL };
    breaks("passes twice left out", &users(rules, A_CRASH), "late", 12);
}

#[test]
fn no_answer_may_be_given_before_caches_have_let_go() {
    let rules = Rules { waits: false, ..Rules::ALL };
    breaks("waits left out", &users(rules, CALM), "honoured", 9);
}

#[test]
fn nor_before_they_have_let_go_of_what_was_noted_late() {
    let rules = Rules { waits_again: false, ..Rules::ALL };
    breaks("waits again left out", &users(rules, CALM), "late", 12);
}

#[test]
fn a_time_asked_behind_the_read_says_nothing_of_it() {
    let rules = Rules { asks_time_first: false, ..Rules::ALL };
    breaks("asks time first left out", &users(rules, CALM), "read", 9);
}

#[test]
fn what_was_noted_late_may_be_somebody_elses_by_now() {
    let rules = Rules { looks_again: false, ..Rules::ALL };
    breaks("looks again left out", &users(rules, A_CHANGE), "other", 7);
}
