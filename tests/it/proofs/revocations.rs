//! When the store says that a session has changed or gone, no vestibule goes on with what it was.
//!
//! A change is late by the time from its acknowledgement by Redis to the beginning of the last request that is
//! still told the old user. What was known before is kept in the caches by asking for it, and each session is
//! asked for again and again, over every vestibule, while it changes.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Spread, report, scaled};
use crate::support::asker::{Asker, NOBODY, mirror};
use crate::support::config::Config;
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;

/// What is promised while nothing is wrong.
const PROMPT: Duration = Duration::from_millis(50);
/// What is promised under any single fault: the default of `max_staleness`.
pub(super) const MAX_STALENESS: Duration = Duration::from_secs(1);
/// Changes under way at the same time.
const LANES: usize = 8;
/// Sessions that do not change, and clients who use them on each vestibule meanwhile.
const CONSTANT: usize = 32;

/// How a session changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Deleted,
    ExpiredAtOnce,
    Expiring,
    OfAnotherUser,
}

impl Change {
    const ALL: [Change; 4] =
        [Change::Deleted, Change::ExpiredAtOnce, Change::Expiring, Change::OfAnotherUser];
    const SHORT_LIFE: Duration = Duration::from_millis(20);

    /// Makes the change; returns when it counts.
    pub(super) async fn make(self, redis: &mut MultiplexedConnection, id: &str) -> Instant {
        let key = format!("session:{id}");
        let command = match self {
            Change::Deleted => redis::cmd("DEL").arg(key).to_owned(),
            Change::ExpiredAtOnce => redis::cmd("EXPIRE").arg(key).arg(0).to_owned(),
            Change::Expiring => {
                redis::cmd("PEXPIRE").arg(key).arg(Self::SHORT_LIFE.as_millis() as u64).to_owned()
            }
            Change::OfAnotherUser => redis::cmd("HSET").arg(key).arg("user_id").arg(new_user(id)).to_owned(),
        };
        let () = command.query_async(redis).await.unwrap();
        match self {
            Change::Expiring => Instant::now() + Self::SHORT_LIFE,
            _ => Instant::now(),
        }
    }

    /// Who uses the session from then on.
    fn user_afterwards(self, id: &str) -> String {
        if self == Change::OfAnotherUser { new_user(id) } else { NOBODY.to_owned() }
    }
}

pub(super) fn old_user(id: &str) -> String {
    format!("old-{id}")
}

pub(super) fn new_user(id: &str) -> String {
    format!("new-{id}")
}

pub(super) async fn put(redis: &mut MultiplexedConnection, id: &str) {
    let mut both = redis::pipe();
    both.hset(format!("session:{id}"), "user_id", old_user(id)).pexpire(format!("session:{id}"), 3_600_000);
    let () = both.query_async(redis).await.unwrap();
}

/// Without renewals, which would lengthen the life of a session that is in use.
pub(super) async fn vestibule(instance: &Service, url: &str, tables: &str) -> Program {
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session]\nidle_timeout = \"off\"\n\
         [session.store]\nurl = \"{url}\"\nresponse_timeout = \"500ms\"\n{tables}"
    );
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await;
    program.wait_for_fresh_cache().await;
    program
}

/// What came of a change at one vestibule.
struct Outcome {
    change: Change,
    late: Duration,
}

/// Asks with the session until it has changed, and a little longer; `counts` tells when that counts.
async fn watch_change(
    asker: &mut Asker,
    id: &str,
    change: Change,
    counts: watch::Receiver<Option<Instant>>,
) -> Outcome {
    let (old, new) = (old_user(id), change.user_afterwards(id));
    let (mut late, mut seen_new) = (Duration::ZERO, 0);
    while seen_new < 5 {
        let told = asker.ask(id).await;
        let counted_from = *counts.borrow();
        match told.user() {
            Some(user) if user == old => {
                assert_eq!(seen_new, 0, "{change:?}: the old user came back");
                if let Some(from) = counted_from {
                    late = late.max(told.begun.saturating_duration_since(from));
                }
                assert!(late < 5 * MAX_STALENESS, "{change:?} is never heard of");
            }
            Some(user) if user == new => seen_new += 1,
            other => panic!("{change:?}: {other:?} instead of {old} or {new}: {told:?}"),
        }
    }
    Outcome { change, late }
}

/// Changes one session after the other while all vestibules are asked for it.
async fn lane(
    mut redis: MultiplexedConnection,
    addresses: Vec<SocketAddr>,
    numbers: impl Iterator<Item = usize>,
) -> Vec<Outcome> {
    let mut askers = join_all(addresses.iter().map(|address| Asker::connect(*address))).await;
    let mut outcomes = Vec::new();
    for number in numbers {
        let (id, change) = (format!("s{number}"), Change::ALL[number % Change::ALL.len()]);
        for asker in &mut askers {
            assert_eq!(asker.ask(&id).await.user(), Some(old_user(&id).as_str()));
        }
        let (counts, counted) = watch::channel(None);
        let make = async {
            sleep(Duration::from_micros(fastrand::u64(..5_000))).await; // at any point of the others' way
            counts.send_replace(Some(change.make(&mut redis, &id).await));
        };
        let watching = askers.iter_mut().map(|asker| watch_change(asker, &id, change, counted.clone()));
        outcomes.extend(tokio::join!(join_all(watching), make).0);
    }
    outcomes
}

/// Uses sessions that do not change until told to stop; returns how often.
async fn use_constant_ones(address: SocketAddr, over: watch::Receiver<bool>) -> usize {
    let (mut asker, mut count) = (Asker::connect(address).await, 0);
    while !*over.borrow() {
        let id = format!("constant{}", fastrand::usize(..CONSTANT));
        assert_eq!(asker.ask(&id).await.user(), Some(old_user(&id).as_str()));
        count += 1;
    }
    count
}

/// Changes `count` sessions while `addresses` are asked for them and others are used; checks at the end that no
/// old user is left anywhere.
async fn change_many(redis: &Redis, addresses: &[SocketAddr], count: usize) -> Vec<Outcome> {
    let mut connection = redis.connect().await;
    for number in 0..count {
        put(&mut connection, &format!("s{number}")).await;
    }
    for number in 0..CONSTANT {
        put(&mut connection, &format!("constant{number}")).await;
    }
    let (over, is_over) = watch::channel(false);
    let (mut lanes, mut users) = (JoinSet::new(), JoinSet::new());
    for address in addresses {
        for _ in 0..4 {
            users.spawn(use_constant_ones(*address, is_over.clone()));
        }
    }
    for number in 0..LANES {
        let own = redis.connect().await;
        lanes.spawn(lane(own, addresses.to_vec(), (number..count).step_by(LANES)));
    }
    let outcomes: Vec<Outcome> = lanes.join_all().await.into_iter().flatten().collect();
    over.send_replace(true);
    let uses: usize = users.join_all().await.into_iter().sum();
    for address in addresses {
        let mut asker = Asker::connect(*address).await;
        for number in 0..count {
            let (id, change) = (format!("s{number}"), Change::ALL[number % Change::ALL.len()]);
            assert_eq!(asker.ask(&id).await.user(), Some(change.user_afterwards(&id).as_str()));
        }
    }
    report(
        "revocations",
        format!("{count} changes at {} vestibules, {uses} uses of other sessions meanwhile", addresses.len()),
    );
    outcomes
}

fn report_lateness(what: &str, outcomes: &[Outcome]) -> Spread {
    for change in Change::ALL {
        let own = Spread::of(
            outcomes.iter().filter(|outcome| outcome.change == change).map(|outcome| outcome.late),
        );
        report("revocations", format!("{what}, {change:?}: late {own}"));
    }
    let all = Spread::of(outcomes.iter().map(|outcome| outcome.late));
    let over = outcomes.iter().filter(|outcome| outcome.late > PROMPT).count();
    report("revocations", format!("{what}, all: late {all}; {over} by more than {PROMPT:?}"));
    all
}

#[tokio::test]
async fn changes_in_the_store_count_at_once_at_every_vestibule() {
    let (redis, instance) = (Redis::start().await, mirror());
    let programs =
        [vestibule(&instance, &redis.url(), "").await, vestibule(&instance, &redis.url(), "").await];
    let addresses = programs.each_ref().map(|program| program.address);
    let outcomes = change_many(&redis, &addresses, scaled(200, 10_000)).await;
    let late = report_lateness("healthy", &outcomes);
    assert!(late.at(99) <= scaled(MAX_STALENESS, PROMPT), "{late}");
    assert!(late.most() <= MAX_STALENESS, "{late}");
}

/// Answers of the store are late and changes are not: what was read before a change arrives after it. Fails
/// without the `take_invalidation` in `Leader::land`, when what was read before a change is kept.
#[tokio::test]
async fn a_change_that_overtakes_a_look_up_counts() {
    let (redis, instance) = (Redis::start().await, mirror());
    let fault = Fault::before(redis.address()).await;
    let program = vestibule(&instance, &fault.url(), "").await;
    let delay = Duration::from_millis(10);
    fault.set(Rules { delays_look_ups: delay, is_random: true, ..Rules::default() });
    let mut connection = redis.connect().await;
    let (mut asker, mut late) = (Asker::connect(program.address).await, Vec::new());
    for number in 0..scaled(150, 2_000) {
        let id = format!("s{number}");
        put(&mut connection, &id).await;
        let (counts, counted) = watch::channel(None);
        let make = async {
            sleep(delay.mul_f64(fastrand::f64())).await; // while the first look-up is under way
            counts.send_replace(Some(Change::OfAnotherUser.make(&mut connection, &id).await));
        };
        let (outcome, ()) = tokio::join!(watch_change(&mut asker, &id, Change::OfAnotherUser, counted), make);
        late.push(outcome.late);
    }
    let late = Spread::of(late);
    report("revocations", format!("overtaken look-ups: late {late}"));
    assert!(late.most() <= MAX_STALENESS, "{late}");
}

/// Where Redis reports no changes, other programs can: what they publish counts at once, and what they do not
/// publish counts within `max_staleness`.
#[tokio::test]
async fn where_changes_are_not_reported_published_ones_count_at_once() {
    let (redis, instance) = (Redis::start().await, mirror());
    let rules = ["SETUSER", "proxy", "on", ">pass", "~*", "&*", "+@all", "-client|tracking"];
    let () = redis.command("ACL", &rules[..]).await;
    let url = redis.url().replace("redis://", "redis://proxy:pass@");
    let program = vestibule(&instance, &url, "[session.cache]\nmax_staleness = \"2s\"").await;
    let mut connection = redis.connect().await;
    let (mut asker, mut published, mut silent) =
        (Asker::connect(program.address).await, Vec::new(), Vec::new());
    for number in 0..scaled(40, 1_000) {
        let is_published = number % scaled(20, 100) > 0;
        let (id, change) = (format!("s{number}"), Change::OfAnotherUser);
        put(&mut connection, &id).await;
        assert_eq!(asker.ask(&id).await.user(), Some(old_user(&id).as_str()));
        let (counts, counted) = watch::channel(None);
        let make = async {
            let mut from = change.make(&mut connection, &id).await;
            if is_published {
                let publish = redis::cmd("PUBLISH").arg("session:invalidated").arg(&id).to_owned();
                let () = publish.query_async(&mut connection).await.unwrap();
                from = Instant::now();
            }
            counts.send_replace(Some(from));
        };
        let (outcome, ()) = tokio::join!(watch_change(&mut asker, &id, change, counted), make);
        if is_published { &mut published } else { &mut silent }.push(outcome.late);
    }
    let (published, silent) = (Spread::of(published), Spread::of(silent));
    report("revocations", format!("published: late {published}"));
    report("revocations", format!("not reported (max_staleness 2s): late {silent}"));
    assert!(published.at(95) <= scaled(MAX_STALENESS, PROMPT), "{published}");
    let bound = Duration::from_secs(2);
    assert!(silent.most() <= bound && silent.at(0) > bound / 2, "{silent}");
}
