//! Histories made by hand: good ones are accepted, and each way to break a promise is found.

use std::time::Duration;

use super::history::{Event, Name, Told, What, Whom, Write};
use super::verdict::{Promise, Terms, Verdict, judge};

const TERMS: Terms = Terms {
    prompt: Duration::from_millis(50),
    max_staleness: Duration::from_millis(1_000),
    slack: Duration::from_millis(100),
    goes_on: false,
};

/// An event of these milliseconds.
fn at(begun: u64, ended: u64, what: What) -> Event {
    Event { begun: Duration::from_millis(begun), ended: Duration::from_millis(ended), what }
}

fn told(begun: u64, told: Told) -> Event {
    at(begun, begun + 1, What::Asked { vestibule: 0, session: "s".into(), told })
}

fn served(begun: u64, user: &str) -> Event {
    told(begun, Told::User(user.into()))
}

fn cleared(begun: u64) -> Event {
    told(begun, Told::CookieCleared)
}

fn wrote(begun: u64, write: Write) -> Event {
    at(begun, begun + 2, What::Wrote { session: "s".into(), write, is_acknowledged: true })
}

fn set(begun: u64, user: &str) -> Event {
    wrote(begun, Write::Set(user.into()))
}

/// A write that nobody acknowledged.
fn lost(begun: u64, write: Write) -> Event {
    at(begun, begun + 2, What::Wrote { session: "s".into(), write, is_acknowledged: false })
}

fn found(begun: u64, user: Option<&str>) -> Event {
    at(begun, begun + 2, What::Found { session: "s".into(), user: user.map(Name::from) })
}

fn revoked(begun: u64, status: u16) -> Event {
    at(begun, begun + 10, What::Revoked { whom: Whom::Session("s".into()), status: Some(status) })
}

fn revoked_user(begun: u64, user: &str) -> Event {
    at(begun, begun + 10, What::Revoked { whom: Whom::User(user.into()), status: Some(200) })
}

fn fault(begun: u64, ended: u64) -> Event {
    at(begun, ended, What::Fault("silence".into()))
}

fn verdict_with(terms: &Terms, events: &[Event]) -> Verdict {
    verdict_on(Duration::ZERO, terms, events)
}

/// When the machine kept so much of any time from those who are judged.
fn verdict_on(kept: Duration, terms: &Terms, events: &[Event]) -> Verdict {
    let mut history = events.to_vec();
    history.sort_by_key(|event| event.begun);
    judge(&history, terms, &|_, _| kept)
}

fn broken_with(terms: &Terms, events: &[Event]) -> Vec<Promise> {
    let verdict = verdict_with(terms, events);
    verdict.violations.into_iter().map(|violation| violation.promise).collect()
}

fn broken(events: &[Event]) -> Vec<Promise> {
    broken_with(&TERMS, events)
}

#[test]
fn right_answers_are_accepted() {
    let good = [
        set(0, "a"),
        served(10, "a"),
        set(20, "b"),
        served(25, "a"), // promptly enough
        served(100, "b"),
        wrote(200, Write::Login("c".into())),
        cleared(201),
        served(400, "c"),
        wrote(500, Write::End),
        cleared(510),
        told(700, Told::Nobody),
        told(900, Told::Refused),
    ];
    assert_eq!(broken(&good), []);
}

#[test]
fn an_answer_that_crosses_a_change_may_be_either() {
    let slow = |user: &str| {
        let told = Told::User(user.into());
        at(1_000, 3_000, What::Asked { vestibule: 0, session: "s".into(), told })
    };
    let (before, after) = (set(0, "a"), set(2_000, "b"));
    assert_eq!(broken(&[before.clone(), after.clone(), slow("a")]), []);
    assert_eq!(broken(&[before.clone(), after.clone(), slow("b")]), []);
    assert_eq!(broken(&[before, set(3_500, "b"), slow("b")]), [Promise::Identity], "known before it was");
}

#[test]
fn a_late_change_is_found() {
    for change in [set(1_000, "b"), wrote(1_000, Write::End), wrote(1_000, Write::Login("b".into()))] {
        assert_eq!(broken(&[set(0, "a"), change.clone(), served(1_150, "a")]), []);
        assert_eq!(broken(&[set(0, "a"), change.clone(), served(1_160, "a")]), [Promise::Prompt], "{change}");
    }
}

#[test]
fn what_the_machine_kept_is_forgiven_of_promptness_and_of_nothing_else() {
    let broken = |kept: u64, events: &[Event]| {
        let verdict = verdict_on(Duration::from_millis(kept), &TERMS, events);
        verdict.violations.into_iter().map(|violation| violation.promise).collect::<Vec<_>>()
    };
    let at_once = [set(0, "a"), set(1_000, "b"), served(1_500, "a")];
    assert_eq!(broken(300, &at_once), [Promise::Prompt]);
    assert_eq!(broken(400, &at_once), []);
    assert_eq!(broken(9_000, &[set(0, "a"), set(1_000, "b"), served(2_150, "a")]), [Promise::Prompt]);
    let in_a_fault = [set(0, "a"), fault(900, 3_000), set(1_000, "b"), served(2_150, "a")];
    assert_eq!(broken(9_000, &in_a_fault), [Promise::Bounded]);
    let refused = [at(1_000, 3_000, What::Healed), told(3_000, Told::Refused)];
    assert_eq!(broken(100, &refused), [Promise::Recovery]);
    assert_eq!(broken(300, &refused), []);
}

#[test]
fn in_a_fault_a_change_has_until_max_staleness() {
    let changes = [set(0, "a"), fault(900, 3_000), set(1_000, "b")];
    let with = |event| broken(&[&changes[..], &[event]].concat());
    assert_eq!(with(served(2_050, "a")), []);
    assert_eq!(with(served(2_150, "a")), [Promise::Bounded]);
    assert_eq!(with(told(2_150, Told::Refused)), []);
}

#[test]
fn some_time_after_a_fault_changes_count_at_once_again() {
    let changes = [set(0, "a"), fault(500, 600)];
    let with = |at, asked| broken(&[&changes[..], &[set(at, "b"), served(asked, "a")]].concat());
    assert_eq!(with(1_500, 1_900), []);
    assert_eq!(with(1_700, 2_000), [Promise::Prompt]);
}

#[test]
fn a_revocation_counts_for_every_request_that_begins_later() {
    for status in [200, 202] {
        let with = |event| broken(&[set(0, "a"), fault(50, 9_000), revoked(100, status), event]);
        assert_eq!(with(served(105, "a")), []);
        assert_eq!(with(cleared(105)), []);
        assert_eq!(with(served(111, "a")), [Promise::Revoked], "{status}");
        assert_eq!(with(cleared(8_000)), []);
    }
}

#[test]
fn a_revocation_without_a_clear_answer_promises_nothing() {
    let with = |event| broken(&[set(0, "a"), revoked(100, 503), event]);
    assert_eq!(with(served(5_000, "a")), []);
    assert_eq!(with(cleared(5_000)), []);
    assert_eq!(with(served(5_000, "z")), [Promise::Identity]);
}

#[test]
fn a_failover_may_undo_what_was_accepted_and_not_what_was_revoked() {
    let failover = at(500, 1_500, What::Failover);
    let with = |status| broken(&[set(0, "a"), revoked(100, status), failover.clone(), served(9_000, "a")]);
    assert_eq!(with(202), []);
    assert_eq!(with(200), [Promise::Revoked]);
    let during = [set(0, "a"), failover.clone(), revoked(1_000, 202), served(9_000, "a")];
    assert_eq!(broken(&during), []);
    let after = [set(0, "a"), failover, found(2_000, Some("a")), revoked(3_000, 202), served(9_000, "a")];
    assert_eq!(broken(&after), [Promise::Revoked]);
}

#[test]
fn all_sessions_of_a_user_end_that_somebody_was_served_with() {
    let with = |events: &[Event]| broken(&[&[set(0, "a"), revoked_user(100, "a")], events].concat());
    assert_eq!(with(&[served(50, "a"), served(111, "a")]), [Promise::Revoked]);
    assert_eq!(with(&[served(111, "a")]), [], "no vestibule knew of it");
    let of_another = [set(0, "a"), served(10, "a"), set(20, "b"), served(60, "b"), revoked_user(100, "a")];
    assert_eq!(broken(&[&of_another[..], &[cleared(2_000)]].concat()), [Promise::Unknown]);
    assert_eq!(broken(&[&of_another[..], &[served(2_000, "b")]].concat()), []);
}

#[test]
fn a_live_session_that_is_taken_for_an_ended_one_is_found() {
    assert_eq!(broken(&[set(0, "a"), cleared(3)]), [Promise::Unknown], "nobody knew it before");
    assert_eq!(broken(&[set(0, "a"), told(3, Told::Nobody)]), [Promise::Unknown]);
    let login = wrote(100, Write::Login("b".into()));
    assert_eq!(broken(&[set(0, "a"), login.clone(), cleared(150)]), []);
    assert_eq!(broken(&[set(0, "a"), login, cleared(300)]), [Promise::Unknown]);
}

#[test]
fn what_an_old_primary_does_not_have_yet_is_excused_for_a_while() {
    let failover = at(0, 500, What::Failover);
    let with = |set_at, asked| broken(&[failover.clone(), set(set_at, "a"), cleared(asked)]);
    assert_eq!(with(600, 700), []);
    assert_eq!(with(600, 1_800), [Promise::Unknown]);
    assert_eq!(with(1_600, 1_603), [Promise::Unknown]);
    assert_eq!(verdict_with(&TERMS, &[failover, set(600, "a"), cleared(700)]).excused, 1);
}

#[test]
fn the_name_of_somebody_else_is_found() {
    assert_eq!(broken(&[set(0, "a"), served(10, "z")]), [Promise::Identity]);
}

#[test]
fn after_a_write_that_nobody_acknowledged_either_may_be_so_until_it_is_known() {
    let both = [set(0, "a"), lost(100, Write::Set("b".into()))];
    assert_eq!(broken(&[&both[..], &[served(3_000, "a"), served(4_000, "b")]].concat()), []);
    let read = [&both[..], &[found(5_000, Some("a")), served(5_100, "a")]].concat();
    assert_eq!(broken(&read), []);
    assert_eq!(broken(&[&read[..], &[served(5_200, "b")]].concat()), [Promise::Prompt]);
    let written = [&both[..], &[set(5_000, "c"), served(5_200, "a"), served(5_300, "c")]].concat();
    assert_eq!(broken(&written), [Promise::Prompt]);
}

#[test]
fn what_a_failover_loses_is_what_the_new_primary_says() {
    let events = [set(0, "a"), set(100, "b"), at(500, 900, What::Failover)];
    assert_eq!(broken(&[&events[..], &[served(2_000, "a"), cleared(2_500)]].concat()), []);
    let read = [&events[..], &[found(3_000, Some("a"))]].concat();
    assert_eq!(broken(&[&read[..], &[served(6_000, "a")]].concat()), []);
    assert_eq!(broken(&[&read[..], &[served(6_000, "b")]].concat()), [Promise::Prompt]);
    let written = [&events[..], &[set(3_000, "c")]].concat();
    assert_eq!(broken(&[&written[..], &[served(6_000, "b")]].concat()), [Promise::Prompt]);
    let meanwhile = [&events[..], &[set(600, "c"), served(5_000, "a"), served(6_000, "c")]].concat();
    assert_eq!(broken(&meanwhile), [], "at the old primary or the new one");
    let verdict = verdict_with(&TERMS, &read);
    assert_eq!(verdict.surprises, 0);
}

#[test]
fn a_flush_ends_all() {
    let flushed = at(100, 110, What::Flushed);
    assert_eq!(broken(&[set(0, "a"), flushed.clone(), cleared(120)]), []);
    assert_eq!(broken(&[set(0, "a"), flushed.clone(), served(300, "a")]), [Promise::Prompt]);
    assert_eq!(broken(&[set(0, "a"), flushed, set(100, "b"), served(300, "b")]), [], "swapped for another");
}

#[test]
fn what_goes_on_in_an_outage_is_what_was_not_known_to_be_over_before() {
    let terms = Terms { goes_on: true, ..TERMS };
    let with = |events: &[Event]| broken_with(&terms, &[&[set(0, "a")], events].concat());
    assert_eq!(with(&[fault(1_000, 9_000), wrote(2_000, Write::End), served(8_000, "a")]), []);
    assert_eq!(
        with(&[wrote(1_000, Write::End), fault(3_000, 9_000), served(8_000, "a")]),
        [Promise::Bounded]
    );
    assert_eq!(with(&[fault(1_000, 9_000), revoked(2_000, 200), served(8_000, "a")]), []);
    assert_eq!(with(&[fault(1_000, 9_000), revoked(2_000, 200), served(12_000, "a")]), [Promise::Revoked]);
    let gap = [fault(1_000, 1_010), wrote(1_005, Write::End), fault(4_000, 9_000), served(8_000, "a")];
    assert_eq!(with(&gap), [Promise::Bounded]);
    assert_eq!(
        with(&[fault(1_000, 9_000), wrote(2_000, Write::End), served(12_000, "a")]),
        [Promise::Bounded]
    );
}

#[test]
fn refusals_are_for_faults_and_the_time_right_after_them() {
    let verdict =
        verdict_with(&TERMS, &[fault(100, 200), told(150, Told::Refused), told(450, Told::Refused)]);
    assert_eq!(verdict.recoveries, [Duration::from_millis(250)]);
    let slow = at(390, 700, told(0, Told::Refused).what);
    let verdict = verdict_with(&TERMS, &[fault(100, 200), told(300, Told::Refused), slow, fault(400, 900)]);
    assert_eq!(verdict.recoveries, [Duration::from_millis(100), Duration::ZERO]);
    let healed = at(1_000, 3_000, What::Healed);
    assert_eq!(broken(&[healed.clone(), told(2_999, Told::Refused)]), []);
    assert_eq!(broken(&[healed, told(3_000, Told::Refused)]), [Promise::Recovery]);
}

#[test]
fn lateness_is_told_to_the_millisecond_and_apart_for_faults() {
    let calm = [set(0, "a"), served(1, "a"), set(100, "b"), served(130, "a"), served(140, "b")];
    let verdict = verdict_with(&TERMS, &calm);
    assert_eq!(verdict.late, [Duration::from_millis(28)]);
    let verdict = verdict_with(&TERMS, &[&calm[..], &[fault(90, 200)]].concat());
    assert_eq!(verdict.late_in_faults, [Duration::from_millis(28)]);
}

#[test]
fn what_the_store_does_by_itself_is_counted() {
    let verdict = verdict_with(&TERMS, &[set(0, "a"), found(100, None), cleared(50)]);
    assert_eq!((verdict.surprises, verdict.violations.len()), (1, 0));
}
