//! What vestibule writes itself hides nothing that others write, however close together they come.
//!
//! A session that is due for renewal is used, and changed by another program so that both writes reach Redis in
//! one turn of its event loop. A change is lost when the old user is still told after `max_staleness`.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, pipe};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{BOUND, new_user, old_user, owner, put, vestibule};
use crate::proofs::{Spread, report, rounds};
use crate::support::asker::{Asker, mirror};
use crate::support::redis::Redis;
use crate::support::redis_cluster::Cluster;
use crate::support::within;

/// `idle_timeout`.
const IDLE: Duration = Duration::from_secs(4);
/// What a login gives a session: so much less that its first use renews it.
const LOGIN: Duration = Duration::from_secs(3);
/// Sessions that are changed while Redis is busy once.
const SESSIONS: usize = 5;
/// Sessions that change at the same time beside batch jobs.
const LANES: usize = 64;

/// How another program changes a session.
#[derive(Debug, Clone, Copy)]
enum Way {
    AnotherUser,
    LogoutAndLogin,
    TwoTransactions,
    Script,
}

impl Way {
    /// What each of two clients of Redis sends.
    fn writes(self, id: &str) -> [Pipeline; 2] {
        let (key, user, ttl) = (format!("session:{id}"), new_user(id), LOGIN.as_millis() as i64);
        let (mut one, mut two) = (pipe(), pipe());
        match self {
            Way::AnotherUser => one.hset(key, "user_id", user),
            Way::LogoutAndLogin => one.del(&key).hset(&key, "user_id", user).pexpire(key, ttl),
            Way::TwoTransactions => {
                two.atomic().hset(&key, "name", "name").pexpire(&key, ttl);
                one.atomic().hset(&key, "seen", "now").hset(key, "user_id", user)
            }
            Way::Script => {
                let script = "redis.call('DEL', KEYS[1]) redis.call('HSET', KEYS[1], 'user_id', ARGV[1])
                    redis.call('PEXPIRE', KEYS[1], ARGV[2])";
                one.cmd("EVAL").arg(script).arg(1).arg(key).arg(user).arg(ttl)
            }
        };
        [one, two]
    }
}

/// Changes sessions while Redis is busy for 120 ms and their renewals become due.
async fn change_while_busy(
    redis: &Redis,
    askers: &mut [Asker],
    way: Way,
    renewal: &str,
    ids: &[String],
) -> usize {
    let (mut busy, mut clients) = (redis.connect().await, [redis.connect().await, redis.connect().await]);
    for id in ids {
        put(&mut clients[0], id, &old_user(id), LOGIN).await;
    }
    for (asker, id) in askers.iter_mut().zip(ids) {
        assert_eq!(owner(asker, id).await, old_user(id));
    }
    if renewal == "sync" {
        sleep(IDLE / 10).await; // the look-up has renewed it
    }
    let sleeps = redis::cmd("DEBUG").arg("SLEEP").arg("0.12").to_owned();
    let sleeping = async {
        let () = sleeps.query_async(&mut busy).await.unwrap();
    };
    let changing = async {
        sleep(Duration::from_millis(10)).await; // it is busy now
        change(&clients, way, ids).await;
        Instant::now()
    };
    let using = join_all(askers.iter_mut().zip(ids).map(async |(asker, id)| {
        sleep(Duration::from_millis(20)).await; // the change is on its way
        for _ in 0..15 {
            asker.ask(id).await;
            sleep(Duration::from_millis(8)).await; // until it is not busy any more
        }
    }));
    let ((), counts, _) = tokio::join!(sleeping, changing, using);
    let mut lost = 0;
    for id in ids {
        lost += usize::from(is_lost(&mut askers[0], id, &new_user(id), counts).await);
    }
    lost
}

/// Whether the session still resolves to another user than `user` when the change to `user` must count.
async fn is_lost(asker: &mut Asker, id: &str, user: &str, counts: Instant) -> bool {
    within("the change", async {
        loop {
            let told = asker.ask(id).await;
            match told.user() {
                Some(seen) if seen == user => return false,
                Some(_) if told.begun > counts + BOUND => return true,
                _ => sleep(Duration::from_millis(3)).await, // leave the machine to the others
            }
        }
    })
    .await
}

/// Changes all these sessions at the same time, each by two clients.
async fn change(clients: &[MultiplexedConnection; 2], way: Way, ids: &[String]) {
    let pairs = ids.iter().flat_map(|id| clients.iter().cloned().zip(way.writes(id)));
    let writes = pairs.filter(|(_, write)| !write.is_empty()).map(async |(mut client, write)| {
        let _: redis::Value = write.query_async(&mut client).await.unwrap();
    });
    join_all(writes).await;
}

/// Changes sessions on this server, which is in the store at `url`; `ids` are named so that they are kept there.
async fn none_is_lost(
    way: Way,
    renewal: &str,
    redis: &Redis,
    url: &str,
    mut ids: impl AsyncFnMut(usize) -> Vec<String>,
) {
    let (instance, session) = (mirror(), format!("idle_timeout = \"4s\"\nrenewal = \"{renewal}\""));
    let program = vestibule(&instance, url, &session, "").await;
    let mut askers = join_all([program.address; SESSIONS].map(Asker::connect)).await;
    let (rounds, mut lost) = (rounds(4, 200), 0);
    for round in 0..rounds {
        lost += change_while_busy(redis, &mut askers, way, renewal, &ids(round).await).await;
    }
    let tries = rounds * SESSIONS;
    report(
        "renewals",
        format!("{way:?} in the turn of a renewal ({renewal}): {lost} of {tries} changes lost"),
    );
    assert_eq!(lost, 0, "of {tries}");
}

async fn none_is_lost_on_one_server(way: Way, renewal: &str) {
    let redis = Redis::start_with(&["--enable-debug-command", "local"]).await;
    let ids = async |round| (0..SESSIONS).map(|session| format!("s{round}-{session}")).collect();
    none_is_lost(way, renewal, &redis, &redis.url(), ids).await;
}

#[tokio::test]
async fn a_new_user_who_comes_with_a_renewal_is_never_missed() {
    none_is_lost_on_one_server(Way::AnotherUser, "async").await;
}

#[tokio::test]
async fn a_logout_and_login_that_come_with_a_renewal_are_never_missed() {
    none_is_lost_on_one_server(Way::LogoutAndLogin, "async").await;
}

#[tokio::test]
async fn transactions_of_two_programs_that_come_with_a_renewal_are_never_missed() {
    none_is_lost_on_one_server(Way::TwoTransactions, "async").await;
}

#[tokio::test]
async fn a_script_that_comes_with_a_renewal_is_never_missed() {
    none_is_lost_on_one_server(Way::Script, "async").await;
}

#[tokio::test]
async fn a_change_is_never_missed_when_uses_wait_for_their_renewal() {
    none_is_lost_on_one_server(Way::AnotherUser, "sync").await;
}

#[tokio::test]
async fn in_a_cluster_a_change_that_comes_with_a_renewal_is_never_missed() {
    let (cluster, mut number) = (Cluster::start().await, 0);
    let ids = async |_| {
        let mut ids = Vec::new();
        while ids.len() < SESSIONS {
            number += 1;
            let id = format!("s{number}");
            if cluster.slot(&format!("session:{id}")).await < 5_461 {
                ids.push(id);
            }
        }
        ids
    };
    none_is_lost(Way::AnotherUser, "async", &cluster.nodes[0], &cluster.url(), ids).await;
}

/// Pipelines of commands that take Redis some milliseconds each, as reports and migrations do.
async fn run_batch_jobs(mut redis: MultiplexedConnection) {
    let () = redis::cmd("SETRANGE").arg("batch").arg(250_000).arg("x").query_async(&mut redis).await.unwrap();
    let mut job = pipe();
    for _ in 0..20 {
        job.cmd("BITCOUNT").arg("batch");
    }
    loop {
        let _: Vec<usize> = job.query_async(&mut redis).await.unwrap();
        sleep(Duration::from_millis(fastrand::u64(5..20))).await; // there are others
    }
}

/// Changes one session again and again while it is used; how often in vain, and how late each was seen.
async fn change_often(
    mut redis: MultiplexedConnection,
    mut asker: Asker,
    id: String,
    changes: usize,
) -> (usize, Vec<Duration>) {
    put(&mut redis, &id, "0", Duration::from_secs(2)).await;
    let (mut lost, mut seen) = (0, Vec::new());
    for number in 1..=changes {
        for _ in 0..fastrand::usize(1..20) {
            asker.ask(&id).await;
            sleep(Duration::from_millis(10)).await; // at any point between two renewals
        }
        let mut change = pipe();
        change.hset(format!("session:{id}"), "user_id", number);
        let () = change.query_async(&mut redis).await.unwrap();
        let counts = Instant::now();
        lost += usize::from(is_lost(&mut asker, &id, &number.to_string(), counts).await);
        seen.push(counts.elapsed());
    }
    (lost, seen)
}

#[tokio::test]
async fn no_change_is_missed_beside_batch_jobs() {
    let (redis, instance) = (Redis::start().await, mirror());
    // Each is renewed five times a second.
    let program = vestibule(&instance, &redis.url(), "idle_timeout = \"2s\"", "").await;
    let mut jobs = JoinSet::new();
    for _ in 0..2 {
        jobs.spawn(run_batch_jobs(redis.connect().await));
    }
    let (changes, mut lanes) = (rounds(2_000, 100_000), JoinSet::new());
    for lane in 0..LANES {
        let (own, asker) = (redis.connect().await, Asker::connect(program.address).await);
        lanes.spawn(change_often(own, asker, format!("s{lane}"), changes / LANES));
    }
    let (mut lost, mut seen) = (0, Vec::new());
    for (own, times) in lanes.join_all().await {
        lost += own;
        seen.extend(times);
    }
    let (tries, seen) = (seen.len(), Spread::of(seen));
    report("renewals", format!("beside batch jobs: {lost} of {tries} changes lost; seen after {seen}"));
    assert_eq!(lost, 0, "of {tries}");
}
