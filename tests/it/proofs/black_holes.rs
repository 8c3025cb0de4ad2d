//! A store that takes every question and answers none costs guests nothing and users one deadline.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redis::ToRedisArgs;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Pace, Spread, report, scaled};
use crate::support::asker::{Asker, NOBODY, Told, mirror};
use crate::support::config::Config;
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// What the default timeouts allow: a place on a connection, then one answer.
const DEADLINE: Duration = Duration::from_millis(100 + 250);
/// When the last connection has been given up: two pings after the first question without an answer.
const KNOWN: Duration = Duration::from_millis(1_250);
/// What a machine that has other things to do may add.
const SLACK: Duration = Duration::from_millis(400);
/// More than are used at once.
const SESSIONS: usize = 200;
/// Clients with a session, and as many without.
const CLIENTS: usize = 8;

#[derive(Debug, Clone, Copy)]
enum Hole {
    /// The server is stopped; its connections stay open and new ones are taken by the system.
    Frozen,
    /// A server that takes connections and bytes and never says a word.
    Silent,
}

struct House {
    redis: Redis,
    fault: Fault,
    _instance: Service,
    program: Program,
}

async fn house(on_outage: &str) -> House {
    let (redis, instance) = (Redis::start().await, mirror());
    let script =
        "for n = 0, ARGV[1] - 1 do redis.call('HSET', 'session:s' .. n, 'user_id', 'user-' .. n) end";
    let () = redis.command("EVAL", (script, 0, SESSIONS)).await;
    let fault = Fault::before(redis.address()).await;
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session.store]\nurl = \"{}\"\non_outage = {on_outage}",
        fault.url()
    );
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await;
    program.wait_for_fresh_cache().await;
    House { redis, fault, _instance: instance, program }
}

impl House {
    fn strike(&self, hole: Hole) {
        match hole {
            Hole::Frozen => self.redis.freeze(),
            Hole::Silent => self.fault.set(Rules::SILENT),
        }
    }

    fn end(&self, hole: Hole) {
        match hole {
            Hole::Frozen => self.redis.thaw(),
            Hole::Silent => self.fault.set(Rules::default()),
        }
    }

    async fn asker(&self) -> Asker {
        Asker::connect(self.program.address).await
    }

    async fn change(&self, command: &str, arguments: impl ToRedisArgs) {
        let _: redis::Value = self.redis.command(command, arguments).await;
    }
}

fn user(number: usize) -> String {
    format!("user-{number}")
}

/// Asks with a session until it is known whose it is.
async fn until_served(asker: &mut Asker, number: usize) {
    within("an answer", async {
        while asker.ask(&format!("s{number}")).await.user() != Some(user(number).as_str()) {
            sleep(Duration::from_millis(5)).await; // refusals are quick; leave the machine to the others
        }
    })
    .await;
}

/// Asks at a steady pace until told to stop, as a guest or with a session after the other.
async fn ask_steadily(address: SocketAddr, is_guest: bool, over: watch::Receiver<bool>) -> Vec<Told> {
    let (mut asker, mut all) = (Asker::connect(address).await, Vec::new());
    let mut pace = interval(scaled(Duration::from_millis(80), Duration::from_millis(16)));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*over.borrow() {
        pace.tick().await;
        let number = fastrand::usize(..SESSIONS);
        let told = match is_guest {
            true => asker.ask_with("other=1").await,
            false => asker.ask(&format!("s{number}")).await,
        };
        let expected = if is_guest { NOBODY.to_owned() } else { user(number) };
        assert!(told.user().is_none_or(|user| user == expected), "{told:?}");
        assert!(!told.clears_cookie);
        all.push(told);
    }
    all
}

fn times(all: &[Told], from: Instant, to: Instant) -> Vec<&Told> {
    all.iter().filter(|told| told.begun >= from && told.begun < to).collect()
}

fn spread(all: &[&Told]) -> Spread {
    Spread::of(all.iter().map(|told| told.took))
}

/// Likewise, without what the machine kept from them.
fn net(pace: &Pace, all: &[&Told]) -> Spread {
    Spread::of(all.iter().map(|told| pace.net(told.begun, told.took)))
}

#[tokio::test]
async fn a_frozen_store_costs_guests_nothing_and_users_one_deadline() {
    fall(Hole::Frozen).await;
}

#[tokio::test]
async fn a_silent_store_costs_guests_nothing_and_users_one_deadline() {
    fall(Hole::Silent).await;
}

async fn fall(hole: Hole) {
    let (pace, house) = (Pace::start(), house("\"deny\"").await);
    let (over, is_over) = watch::channel(false);
    let (mut members, mut guests) = (JoinSet::new(), JoinSet::new());
    for _ in 0..CLIENTS {
        members.spawn(ask_steadily(house.program.address, false, is_over.clone()));
        guests.spawn(ask_steadily(house.program.address, true, is_over.clone()));
    }
    let healthy = Instant::now();
    sleep(scaled(Duration::from_secs(1), Duration::from_secs(10))).await;
    let struck = Instant::now();
    house.strike(hole);
    sleep(scaled(Duration::from_secs(3), Duration::from_secs(10))).await;
    let ended = Instant::now();
    house.end(hole);
    sleep(Duration::from_secs(2)).await;
    over.send_replace(true);
    let (members, guests) = (members.join_all().await.concat(), guests.join_all().await.concat());

    let (before, during) = (times(&guests, healthy, struck), times(&guests, struck, ended));
    let net_during = net(&pace, &during).at(99);
    let (before, during) = (spread(&before), spread(&during));
    report("black holes", format!("{hole:?}: guests before: {before}"));
    report("black holes", format!("{hole:?}: guests during: {during}"));
    assert!(guests.iter().all(|told| told.status == 200));
    assert!(net_during <= before.at(99) + scaled(SLACK, Duration::from_millis(10)), "{before} / {during}");

    let known = struck + KNOWN + pace.kept(struck, struck + KNOWN);
    let first = times(&members, struck, known);
    let later = times(&members, known, ended);
    report("black holes", format!("{hole:?}: members before: {}", spread(&times(&members, healthy, struck))));
    report("black holes", format!("{hole:?}: members within {KNOWN:?}: {}", spread(&first)));
    report("black holes", format!("{hole:?}: members later: {}", spread(&later)));
    // What was under way then may have met it, and what the machine kept from the store may be too long for it.
    let is_over = |told: &&&Told| told.begun + told.took < struck;
    let is_kept = |told: &Told| pace.net(told.begun, told.took) < DEADLINE && told.took >= DEADLINE;
    let is_right = |told: &&Told| told.status == 200 || is_kept(told);
    assert!(times(&members, healthy, struck).iter().filter(is_over).all(is_right));
    assert!(net(&pace, &first).most() <= DEADLINE + SLACK, "{}", spread(&first));
    assert!(later.iter().all(|told| told.status == 503));
    assert!(net(&pace, &later).at(99) <= scaled(SLACK, Duration::from_millis(20)), "{}", spread(&later));

    let refusals = members.iter().filter(|told| told.begun >= ended && told.status == 503);
    let recovery = refusals.map(|told| told.begun.duration_since(ended)).max().unwrap_or_default();
    report("black holes", format!("{hole:?}: last refusal {recovery:.2?} after its end"));
    let net_recovery = pace.net(ended, recovery);
    assert!(net_recovery <= Duration::from_secs(1) + scaled(SLACK, Duration::ZERO), "{recovery:?}");
}

#[tokio::test]
async fn known_sessions_go_on_as_configured_and_revoked_ones_do_not() {
    const STALE: Duration = Duration::from_secs(5);
    for hole in [Hole::Frozen, Hole::Silent] {
        let house = house("{ stale = \"5s\" }").await;
        let mut asker = house.asker().await;
        for number in 0..10 {
            until_served(&mut asker, number).await;
        }
        house.change("HSET", ("session:s7", "user_id", "another")).await;
        house.change("DEL", "session:s8").await;
        house.change("PUBLISH", ("vestibule:dead", "3600000 revoked s9")).await;
        within("all three changes", async {
            while asker.ask("s9").await.user() != Some(NOBODY) {} // the last one is told last
        })
        .await;
        let struck = Instant::now();
        house.strike(hole);
        sleep(Duration::from_millis(300)).await; // nothing is known for certain any more
        let (mut served, mut refused) = (Vec::new(), Vec::new());
        while struck.elapsed() < Duration::from_millis(1_800) {
            for number in 0..15 {
                let told = asker.ask(&format!("s{number}")).await;
                assert!(!told.clears_cookie, "{told:?}");
                match told.user() {
                    Some(name) => {
                        assert!(number < 7 && name == user(number), "s{number}: {told:?}");
                        served.push(told.took);
                    }
                    None => {
                        assert!(number >= 7, "s{number} was known: {told:?}");
                        refused.push(told.took);
                    }
                }
            }
            sleep(Duration::from_millis(20)).await; // leave the machine to the others
        }
        report("black holes", format!("{hole:?}, stale: served {}", Spread::of(served.iter().copied())));
        report("black holes", format!("{hole:?}, stale: refused {}", Spread::of(refused.iter().copied())));
        assert!(!served.is_empty() && !refused.is_empty());
        // Counted from the end of the lease, a quarter of a second later than the strike at most.
        sleep((STALE + Duration::from_millis(400)).saturating_sub(struck.elapsed())).await;
        assert_eq!(asker.ask("s0").await.status, 503, "no longer than configured");

        let ended = Instant::now();
        house.end(hole);
        until_served(&mut asker, 0).await;
        report("black holes", format!("{hole:?}, stale: right again after {:.2?}", ended.elapsed()));
        for (id, now) in [("s7", "another"), ("s8", NOBODY), ("s9", NOBODY), ("s12", "user-12")] {
            let told = within("an answer", async {
                loop {
                    let told = asker.ask(id).await;
                    if told.status == 200 {
                        return told;
                    }
                }
            });
            assert_eq!(told.await.user(), Some(now), "{id}");
        }
    }
}

#[tokio::test]
async fn users_are_guests_meanwhile_where_that_is_configured() {
    let house = house("\"anonymous\"").await;
    let mut asker = house.asker().await;
    until_served(&mut asker, 0).await;
    house.strike(Hole::Silent);
    sleep(Duration::from_millis(300)).await; // nothing is known for certain any more
    let struck = Instant::now();
    while struck.elapsed() < Duration::from_millis(1_500) {
        for id in ["s0", "s1"] {
            let told = asker.ask(id).await;
            assert_eq!((told.user(), told.clears_cookie), (Some(NOBODY), false), "{id}");
        }
        sleep(Duration::from_millis(5)).await; // leave the machine to the others
    }
    house.end(Hole::Silent);
    until_served(&mut asker, 0).await;
}
