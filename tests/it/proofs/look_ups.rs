//! The store is asked once for what many want to know, and not at all for what is known.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Pace, Spread, report, scaled};
use crate::support::asker::{Asker, mirror};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::{NEVER, metrics};

/// How long a look-up takes where it is to be under way while others come.
const LOOK_UP: Duration = Duration::from_secs(1);

struct House {
    redis: Redis,
    fault: Fault,
    _instance: Service,
    program: Program,
    /// How often each question had been asked when nothing was asked for yet.
    before: [u64; 3],
}

/// An answer of the store is waited for longer than a test, by all who come meanwhile.
const PATIENT: &str = "response_timeout = \"1h\"\n[session.cache]\nmax_staleness = \"1m\"";

/// Sessions `s0`, `s1` … of `user-0`, `user-1` …, and nothing known of them.
async fn house(sessions: usize, tables: &str) -> House {
    let (redis, instance) = (Redis::start().await, mirror());
    let fault = Fault::before(redis.address()).await;
    let script = "for n = 0, ARGV[1] - 1 do redis.call('HSET', 'session:s' .. n, 'user_id', 'user-' .. n) \
         redis.call('PEXPIRE', 'session:s' .. n, 1800000) end";
    let () = redis.command("EVAL", (script, 0, sessions)).await;
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session.store]\nurl = \"{}\"\nwait_timeout = \"{NEVER}\"\n{tables}",
        fault.url()
    );
    let config = Config::to(&[instance.address()]).workers(2).with(&tables);
    let program = Program::start(config).await;
    program.wait_for_fresh_cache().await;
    let before = questions(&redis).await;
    House { redis, fault, _instance: instance, program, before }
}

impl House {
    async fn askers(&self, count: usize) -> Vec<Asker> {
        join_all((0..count).map(|_| Asker::connect(self.program.address))).await
    }

    /// How often each of the three questions of a look-up was asked.
    async fn asked(&self) -> [u64; 3] {
        let now = questions(&self.redis).await;
        std::array::from_fn(|index| now[index] - self.before[index])
    }
}

async fn questions(redis: &Redis) -> [u64; 3] {
    let calls = redis.all_calls().await;
    ["get", "hgetall", "pttl"].map(|name| calls.get(name).copied().unwrap_or_default())
}

#[tokio::test]
async fn many_who_miss_one_session_at_once_ask_the_store_once() {
    let house = house(1, PATIENT).await;
    house.fault.set(Rules { delays_look_ups: LOOK_UP, ..Rules::default() });
    let pace = Pace::start();
    let mut askers = house.askers(scaled(200, 1_000)).await;
    let begun = Instant::now();
    let answers = join_all(askers.iter_mut().map(|asker| asker.ask("s0"))).await;
    assert!(answers.iter().all(|told| told.user() == Some("user-0")));
    let ends = Spread::of(answers.iter().map(|told| (told.begun + told.took).duration_since(begun)));
    report(
        "single flight",
        format!("{} clients, the answer of the store after {LOOK_UP:?}: {ends}", answers.len()),
    );
    report("single flight", format!("GET, HGETALL, PTTL: {:?}", house.asked().await));
    assert_eq!(house.asked().await, [1, 1, 1]);
    assert!(pace.net(begun, ends.most()) < 5 * LOOK_UP, "they waited for one another");
}

#[tokio::test]
async fn whoever_asked_first_may_leave_without_harm_to_the_others() {
    let house = house(1, PATIENT).await;
    house.fault.set(Rules { holds_look_ups: true, ..Rules::default() });
    let mut first = Client::connect(house.program.address).await;
    first.send_request("GET", "/", &[("Cookie", "session-id=s0")], b"").await;
    while house.asked().await != [1, 1, 1] {
        sleep(Duration::from_millis(5)).await; // commands are for counting, not for waiting
    }
    let mut askers = house.askers(50).await;
    let others = join_all(askers.iter_mut().map(|asker| asker.ask("s0")));
    tokio::pin!(others);
    assert!(timeout(LOOK_UP / 5, &mut others).await.is_err(), "they wait");
    drop(first);
    metrics::wait_for(house.program.admin, "http_requests_total", "status=\"499\"", 1.0).await;
    house.fault.set(Rules::default());
    let answers = others.await;
    assert!(answers.iter().all(|told| told.user() == Some("user-0")));
    assert_eq!(house.asked().await, [1, 1, 1]);
}

#[tokio::test]
async fn an_error_is_shared_and_not_asked_for_again_by_each() {
    let tables = "response_timeout = \"10s\"\n[session.cache]\nmax_staleness = \"1m\"";
    let house = house(1, tables).await;
    let pace = Pace::start();
    house.redis.freeze();
    let mut askers = house.askers(scaled(200, 1_000)).await;
    let answers = join_all(askers.iter_mut().map(|asker| asker.ask("s0"))).await;
    assert!(answers.iter().all(|told| told.status == 503 && !told.clears_cookie));
    let times = Spread::of(answers.iter().map(|told| told.took));
    report("single flight", format!("refused after a response_timeout of 10s: {times}"));
    let most = answers.iter().map(|told| pace.net(told.begun, told.took)).max().unwrap();
    assert!(most < Duration::from_secs(15), "one after the other: {times}");
    house.redis.thaw();
    while house.asked().await == [0; 3] {
        sleep(Duration::from_millis(5)).await; // what was sent is answered now
    }
    assert_eq!(house.asked().await, [1, 1, 1]);
}

#[tokio::test]
async fn a_session_that_is_not_known_costs_a_round_trip_and_one_more_to_note_its_user() {
    let sessions = scaled(20, 100);
    let (pace, house) = (Pace::start(), house(sessions, PATIENT).await);
    let delay = Duration::from_millis(50);
    house.fault.set(Rules { delays_look_ups: delay, ..Rules::default() });
    let (mut asker, mut answers) = (Asker::connect(house.program.address).await, Vec::new());
    for number in 0..sessions {
        let told = asker.ask(&format!("s{number}")).await;
        assert_eq!(told.user(), Some(format!("user-{number}").as_str()));
        answers.push(told);
    }
    let times = Spread::of(answers.iter().map(|told| told.took));
    report(
        "cold sessions",
        format!("a round trip of {delay:?}: {times}; GET, HGETALL, PTTL: {:?}", house.asked().await),
    );
    assert_eq!(house.asked().await, [sessions as u64; 3]);
    let net = Spread::of(answers.iter().map(|told| pace.net(told.begun, told.took)));
    assert!(times.at(0) >= 2 * delay && net.at(50) < 3 * delay, "{times}");
}

#[tokio::test]
async fn known_sessions_hardly_ever_need_the_store() {
    const SESSIONS: usize = 100;
    // A lease of ten seconds: a busy machine is not to end it.
    let tables = format!("response_timeout = \"{NEVER}\"\n[session.cache]\nmax_staleness = \"40s\"");
    let house = house(SESSIONS, &tables).await;
    let mut first = Asker::connect(house.program.address).await;
    for number in 0..SESSIONS {
        first.ask(&format!("s{number}")).await;
    }
    let mut before = house.redis.all_calls().await;
    loop {
        sleep(Duration::from_secs(5)).await; // what follows a look-up is written in the background
        let calls = std::mem::replace(&mut before, house.redis.all_calls().await);
        if operations(&calls) == operations(&before) {
            break;
        }
    }
    let (pace, askers) = (Pace::start(), house.askers(8).await);
    let (each, begun) = (scaled(500, 25_000), Instant::now());
    let mut users = JoinSet::new();
    for mut asker in askers {
        users.spawn(async move {
            for _ in 0..each {
                let number = fastrand::usize(..SESSIONS);
                let told = asker.ask(&format!("s{number}")).await;
                assert_eq!(told.user(), Some(format!("user-{number}").as_str()));
            }
        });
    }
    let requests = users.len() * each;
    users.join_all().await;
    let took = begun.elapsed();
    let after = house.redis.all_calls().await;
    let link = total(&after, is_for_the_link) - total(&before, is_for_the_link);
    let rest = operations(&after) - operations(&before);
    report(
        "hot sessions",
        format!("{requests} requests in {took:.2?}: {rest} operations, and {link} for the link"),
    );
    // Who had no processor for longer than a lease does not know any more.
    let is_kept = pace.kept(begun, Instant::now()) > Duration::from_secs(10);
    assert!(is_kept || rest as f64 <= requests as f64 * 0.01, "{before:?} {after:?}");
}

/// Calls other than those that keep the link and those of this test itself.
fn operations(calls: &BTreeMap<String, u64>) -> u64 {
    total(calls, |name| !is_for_the_link(name))
}

/// Questions whether the server is a primary, beats (a script that writes one key and removes another), and what it
/// takes to open connections.
fn is_for_the_link(name: &str) -> bool {
    const LINK: [&str; 9] =
        ["role", "eval", "set", "del", "ping", "info", "hello", "client|setinfo", "client|setname"];
    LINK.contains(&name)
}

fn total(calls: &BTreeMap<String, u64>, counts: impl Fn(&str) -> bool) -> u64 {
    calls.iter().filter(|(name, _)| counts(name)).map(|(_, count)| count).sum()
}
