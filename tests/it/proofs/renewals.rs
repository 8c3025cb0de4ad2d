//! Whoever uses a session keeps it, cheaply; and nothing but a use keeps one.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Spread, report, scaled};
use crate::support::asker::{Asker, NOBODY, mirror};
use crate::support::config::Config;
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// Longer than anything here takes.
const HOUR: Duration = Duration::from_secs(3600);
/// A staleness with which renewals wait for seconds, unless something else has them written.
const SLOW: &str = "[session.cache]\nmax_staleness = \"60s\"";

struct House {
    redis: Redis,
    fault: Fault,
    _instance: Service,
    program: Program,
}

async fn house(session: &str, tables: &str) -> House {
    let (redis, instance) = (Redis::start().await, mirror());
    let fault = Fault::before(redis.address()).await;
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session]\n{session}\n\
         [session.store]\nurl = \"{}\"\nresponse_timeout = \"10s\"\nwait_timeout = \"10s\"\n{tables}",
        fault.url()
    );
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await;
    program.wait_for_fresh_cache().await;
    House { redis, fault, _instance: instance, program }
}

impl House {
    async fn asker(&self) -> Asker {
        Asker::connect(self.program.address).await
    }
}

fn user(id: &str) -> String {
    format!("user-of-{id}")
}

/// Writes a session that has this long to live, or no end.
async fn put(redis: &mut MultiplexedConnection, id: &str, ttl: Option<Duration>) {
    let (key, mut write) = (format!("session:{id}"), redis::pipe());
    write.hset(&key, "user_id", user(id));
    if let Some(ttl) = ttl {
        write.pexpire(&key, ttl.as_millis() as i64);
    }
    let () = write.query_async(redis).await.unwrap();
}

/// Milliseconds; -1 for a session without an end, -2 for one that is not there.
async fn ttl(redis: &mut MultiplexedConnection, id: &str) -> i64 {
    redis::cmd("PTTL").arg(format!("session:{id}")).query_async(redis).await.unwrap()
}

async fn wait_for_ttl(redis: &mut MultiplexedConnection, id: &str, least: Duration) {
    within("a renewal", async {
        while ttl(redis, id).await < least.as_millis() as i64 {
            sleep(Duration::from_millis(5)).await; // numbers are for asking, not for waiting
        }
    })
    .await;
}

#[tokio::test]
async fn sessions_in_use_live_on_at_one_write_per_tenth_of_the_idle_timeout() {
    let (sessions, idle) = scaled((100, Duration::from_secs(8)), (10_000, Duration::from_secs(60)));
    let lasts = scaled(idle * 2, idle * 3 / 2);
    let house = house(&format!("idle_timeout = \"{}s\"", idle.as_secs()), "").await;
    let mut redis = house.redis.connect().await;
    for number in 0..sessions {
        put(&mut redis, &format!("s{number}"), Some(idle)).await;
    }
    let before = house.redis.calls("pexpire").await;
    let begun = Instant::now();
    const USERS: usize = 16;
    let mut users = JoinSet::new();
    for number in 0..USERS {
        let own: Vec<String> = (number..sessions).step_by(USERS).map(|n| format!("s{n}")).collect();
        users.spawn(use_for(house.program.address, own, begun + lasts));
    }
    let uses: Vec<(usize, Duration)> = users.join_all().await;
    let took = begun.elapsed();
    let longest = uses.iter().map(|(_, pause)| *pause).max().unwrap();
    let requests: usize = uses.iter().map(|(requests, _)| requests).sum();
    let writes = house.redis.calls("pexpire").await - before;
    let tenths = took.as_secs_f64() / (idle.as_secs_f64() / 10.0);
    let rate = writes as f64 / sessions as f64 / tenths;
    report(
        "renewals",
        format!(
            "{sessions} sessions with idle_timeout {idle:?} used {requests} times in {took:.2?}, each at least every \
         {longest:.2?}: {writes} writes, {rate:.2} per session and tenth"
        ),
    );
    assert!(took > idle && longest < idle / 2, "too slow a machine for this: {longest:?}");
    assert!(rate <= 1.0, "{rate}");
}

/// Uses one session after the other, over and over; how often, and the longest time between two uses of one.
async fn use_for(address: SocketAddr, ids: Vec<String>, until: Instant) -> (usize, Duration) {
    let (mut asker, mut uses, mut longest) = (Asker::connect(address).await, 0, Duration::ZERO);
    while Instant::now() < until {
        let begun = Instant::now();
        for id in &ids {
            let told = asker.ask(id).await;
            assert_eq!(told.user(), Some(user(id).as_str()), "ended while in use: {told:?}");
            uses += 1;
        }
        let pause = scaled(Duration::from_millis(250), Duration::from_millis(50));
        sleep(pause.saturating_sub(begun.elapsed())).await; // leave the machine to the others
        longest = longest.max(begun.elapsed());
    }
    (uses, longest)
}

#[tokio::test]
async fn a_use_right_before_the_end_is_written_before_it() {
    let mut house = house("idle_timeout = \"1h\"", SLOW).await;
    let mut redis = house.redis.connect().await;
    for number in 0..50 {
        put(&mut redis, &format!("s{number}"), Some(HOUR / 2)).await;
    }
    let mut asker = house.asker().await;
    for number in 0..50 {
        let id = format!("s{number}");
        assert_eq!(asker.ask(&id).await.user(), Some(user(&id).as_str()));
    }
    assert!(
        ttl(&mut redis, "s49").await <= HOUR.as_millis() as i64 / 2,
        "written too early to prove anything"
    );
    drop(asker);
    house.program.process.signal("TERM");
    assert_eq!(house.program.process.exit().await.code(), Some(0));
    for number in 0..50 {
        let left = ttl(&mut redis, &format!("s{number}")).await;
        assert!(left > HOUR.as_millis() as i64 * 9 / 10, "s{number}: {left}");
    }
}

#[tokio::test]
async fn a_logout_is_never_undone_by_a_use_at_the_same_time() {
    for renewal in ["async", "sync"] {
        let house = house(&format!("idle_timeout = \"1h\"\nrenewal = \"{renewal}\""), "").await;
        house.fault.set(Rules {
            delays_look_ups: Duration::from_millis(2),
            is_random: true,
            delays_changes: Duration::from_millis(1),
            ..Rules::default()
        });
        let mut redis = house.redis.connect().await;
        let (mut asker, count) = (house.asker().await, scaled(100, 5_000));
        let mut raced = 0;
        for number in 0..count {
            let id = format!("s{number}");
            put(&mut redis, &id, Some(HOUR / 2)).await;
            if fastrand::bool() {
                assert_eq!(asker.ask(&id).await.user(), Some(user(&id).as_str())); // known, and to be renewed
            }
            let logout = async {
                sleep(Duration::from_micros(fastrand::u64(..4_000))).await; // at any point of the use
                let removed: usize =
                    redis::cmd("DEL").arg(format!("session:{id}")).query_async(&mut redis).await.unwrap();
                assert_eq!(removed, 1);
            };
            let uses = async {
                let mut served = 0;
                loop {
                    match asker.ask(&id).await.user() {
                        Some(NOBODY) => return served,
                        Some(name) if name == user(&id) => served += 1,
                        other => panic!("{other:?}"),
                    }
                }
            };
            raced += tokio::join!(uses, logout).0;
        }
        sleep(Duration::from_millis(300)).await; // three times what a renewal waits
        for number in 0..count {
            let (id, left) = (format!("s{number}"), ttl(&mut redis, &format!("s{number}")).await);
            assert_eq!(left, -2, "{id} is back");
        }
        report("logouts", format!("{renewal}: {count} during {raced} uses, none undone"));
    }
}

#[tokio::test]
async fn a_use_gives_no_end_shortens_nothing_and_lengthens_to_no_more_than_allowed() {
    for renewal in ["async", "sync"] {
        let house = house(&format!("idle_timeout = \"1h\"\nrenewal = \"{renewal}\""), "").await;
        let mut redis = house.redis.connect().await;
        let (mut asker, mut sessions) = (house.asker().await, Vec::new());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        for number in 0..scaled(100, 2_000) {
            let id = format!("s{number}");
            let before = fastrand::bool().then(|| HOUR.mul_f64(0.1 + 2.0 * fastrand::f64()));
            let expires = fastrand::bool().then(|| HOUR.mul_f64(0.1 + 2.0 * fastrand::f64()));
            put(&mut redis, &id, before).await;
            if let Some(expires) = expires {
                let end = (now + expires).as_secs_f64();
                let () = redis::cmd("HSET")
                    .arg(format!("session:{id}"))
                    .arg("expires")
                    .arg(end)
                    .query_async(&mut redis)
                    .await
                    .unwrap();
            }
            assert_eq!(asker.ask(&id).await.user(), Some(user(&id).as_str()));
            sessions.push((id, before, expires));
        }
        sleep(Duration::from_secs(1)).await; // ten times what a renewal waits
        for (id, before, expires) in sessions {
            let left = ttl(&mut redis, &id).await;
            let Some(before) = before else {
                assert_eq!(left, -1, "{id} got an end");
                continue;
            };
            let target = HOUR.min(expires.unwrap_or(HOUR));
            let wanted = if before < HOUR.mul_f64(0.9) { before.max(target) } else { before };
            let (left, slack) = (Duration::from_millis(left as u64), Duration::from_secs(20));
            assert!(
                left <= wanted && left + slack >= wanted,
                "{renewal}: {id}: {before:?} to {left:?} instead of {wanted:?}"
            );
        }
    }
}

#[tokio::test]
async fn uses_from_before_an_outage_are_written_after_it_where_there_still_is_a_session() {
    let house = house("idle_timeout = \"1h\"", SLOW).await;
    let mut redis = house.redis.connect().await;
    let (mut asker, count) = (house.asker().await, 100); // too few to be written at once
    let end = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + HOUR * 3 / 4).as_secs_f64();
    for number in 0..count {
        let id = format!("s{number}");
        put(&mut redis, &id, Some(HOUR / 2)).await;
        if number % 4 == 1 {
            let () = redis::cmd("HSET")
                .arg(format!("session:{id}"))
                .arg("expires")
                .arg(end)
                .query_async(&mut redis)
                .await
                .unwrap();
        }
        assert_eq!(asker.ask(&id).await.user(), Some(user(&id).as_str()));
    }
    house.fault.set(Rules::SILENT);
    assert!(
        ttl(&mut redis, "s0").await <= HOUR.as_millis() as i64 / 2,
        "written too early to prove anything"
    );
    for number in (0..count).filter(|number| number % 4 == 2) {
        let () = redis::cmd("DEL").arg(format!("session:s{number}")).query_async(&mut redis).await.unwrap();
    }
    house.fault.cut();
    sleep(Duration::from_millis(500)).await; // an outage
    house.fault.set(Rules::default());
    wait_for_ttl(&mut redis, "s0", HOUR * 9 / 10).await;
    sleep(Duration::from_millis(200)).await; // the others of the same batch
    for number in 0..count {
        let left = ttl(&mut redis, &format!("s{number}")).await;
        let wanted = match number % 4 {
            1 => HOUR.as_millis() as i64 * 7 / 10..=HOUR.as_millis() as i64 * 3 / 4,
            2 => -2..=-2,
            _ => HOUR.as_millis() as i64 * 9 / 10..=HOUR.as_millis() as i64,
        };
        assert!(wanted.contains(&left), "s{number}: {left} instead of {wanted:?}");
    }
}

#[tokio::test]
async fn uses_during_an_outage_are_written_after_it() {
    let (idle, soon_due) = (Duration::from_secs(60), Duration::from_millis(56_500));
    let house = house("idle_timeout = \"60s\"", "on_outage = { stale = \"5m\" }").await;
    let mut redis = house.redis.connect().await;
    put(&mut redis, "s", Some(soon_due)).await;
    let mut asker = house.asker().await;
    assert_eq!(asker.ask("s").await.user(), Some(user("s").as_str()));
    assert!(ttl(&mut redis, "s").await < soon_due.as_millis() as i64, "not due yet");
    house.fault.set(Rules::SILENT);
    sleep(Duration::from_secs(3)).await; // it is due now, and the cache not sure of anything any more
    assert_eq!(asker.ask("s").await.user(), Some(user("s").as_str()));
    assert!(ttl(&mut redis, "s").await < soon_due.as_millis() as i64, "nothing can be written");
    house.fault.set(Rules::default());
    wait_for_ttl(&mut redis, "s", soon_due).await;
    assert!(ttl(&mut redis, "s").await <= idle.as_millis() as i64);
}

/// What renewals cost, as a table: every request is the first use of a session that is due.
#[tokio::test]
async fn what_a_renewal_costs_is_told() {
    const USERS: usize = 8;
    let (each, mut rows) = (scaled(50, 2_000), Vec::new());
    for (name, session) in [
        ("none", "idle_timeout = \"off\""),
        ("async", "idle_timeout = \"1h\""),
        ("sync", "idle_timeout = \"1h\"\nrenewal = \"sync\""),
    ] {
        let house = house(session, "").await;
        let mut redis = house.redis.connect().await;
        for number in 0..USERS * each {
            put(&mut redis, &format!("s{number}"), Some(HOUR / 2)).await;
        }
        let begun = Instant::now();
        let mut users = JoinSet::new();
        for number in 0..USERS {
            let mut asker = house.asker().await;
            users.spawn(async move {
                let mut times = Vec::with_capacity(each);
                for n in number * each..(number + 1) * each {
                    times.push(asker.ask(&format!("s{n}")).await.took);
                }
                times
            });
        }
        let times: Vec<Duration> = users.join_all().await.into_iter().flatten().collect();
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        rows.push(format!("{name:>6} {mean:>10.1?} {rate:>9.0}/s   {}", Spread::of(times)));
        if name != "none" {
            wait_for_ttl(&mut redis, &format!("s{}", USERS * each - 1), HOUR * 9 / 10).await;
        }
    }
    report(
        "renewals",
        format!("one per request\n  kind   mean time  requests   spread\n{}", rows.join("\n")),
    );
}
