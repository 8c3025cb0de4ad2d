//! Promises at their edges: over an upgrade, beside a vestibule that hears nothing, in the moment of a failover,
//! and when a store comes back.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::replicas::refuse;
use super::{BOUND, HOUR, MAX_STALENESS, Watch, config, old_user, owner, put, revoke, vestibule};
use crate::proofs::{Pace, Spread, report, rounds};
use crate::support::asker::{Asker, NOBODY, mirror};
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::{Sentinels, attempt, until};
use crate::support::vestibule::Program;
use crate::support::within;

/// Sessions at the primary that both replicas have.
async fn put_everywhere(sentinels: &Sentinels, ids: &[String]) {
    let primary = sentinels.primary().await;
    let mut connection = primary.connect().await;
    for id in ids {
        put(&mut connection, id, &old_user(id), HOUR).await;
    }
    within("the replicas", async {
        let mut wait = redis::cmd("WAIT");
        wait.arg(2).arg(400);
        while wait.query_async::<usize>(&mut connection).await.unwrap() < 2 {}
    })
    .await;
}

/// Sessions that were accepted to be revoked when no replica followed, and a store that forgets them.
struct Accepted {
    sentinels: Sentinels,
    ids: Vec<String>,
}

impl Accepted {
    /// Revokes over this vestibule.
    async fn over(sentinels: Sentinels, program: &Program) -> Self {
        let ids: Vec<String> = (0..5).map(|session| format!("s{session}")).collect();
        put_everywhere(&sentinels, &ids).await;
        let mut asker = Asker::connect(program.address).await;
        for id in &ids {
            assert_eq!(owner(&mut asker, id).await, old_user(id));
        }
        refuse(&sentinels.redis[0], &sentinels.redis[1], 1).await;
        refuse(&sentinels.redis[0], &sentinels.redis[2], 0).await;
        for id in &ids {
            assert_eq!(revoke(program.admin, "id", id).await.status, 202);
        }
        Self { sentinels, ids }
    }

    /// Kills the primary, the only server that knows, and waits for another.
    async fn forget(&mut self) {
        let before = self.sentinels.named(0).await;
        self.sentinels.redis[0].stop();
        self.sentinels.until_replaced(before).await;
    }
}

#[tokio::test]
async fn an_accepted_revocation_is_remembered_over_an_upgrade() {
    let (mut honoured, mut asked) = (0, 0);
    for _ in 0..rounds(1, 10) {
        let (sentinels, instance) = (Sentinels::start().await, mirror());
        let mut program = Program::start(config(&instance, &sentinels.url(), "", "")).await;
        let mut accepted = Accepted::over(sentinels, &program).await;
        let _successor = program.upgrade(program.process.id(), 0).await;
        program.process.end().await;
        accepted.forget().await;
        let mut asker = Asker::connect(program.address).await;
        for id in &accepted.ids {
            honoured += usize::from(owner(&mut asker, id).await != NOBODY);
            asked += 1;
        }
    }
    report("edges", format!("accepted before an upgrade: {honoured} of {asked} honoured after a failover"));
    assert_eq!(honoured, 0, "of {asked}");
}

#[tokio::test]
async fn who_starts_during_a_failover_learns_of_accepted_revocations_before_it_serves() {
    let (mut honoured, mut asked) = (Vec::new(), 0);
    for _ in 0..rounds(2, 50) {
        let (sentinels, instance) = (Sentinels::start().await, mirror());
        let program = Program::start(config(&instance, &sentinels.url(), "", "")).await;
        let mut accepted = Accepted::over(sentinels, &program).await;
        accepted.sentinels.redis[0].freeze(); // nobody can ask it any more
        let stranger = Program::start(config(&instance, &accepted.sentinels.url(), "", "")).await;
        let ids: Vec<&str> = accepted.ids.iter().map(String::as_str).collect();
        let watch = Watch::start(stranger.address, &ids);
        accepted.forget().await;
        sleep(2 * MAX_STALENESS).await; // those who know have told the new primary
        let account = watch.end().await;
        for id in &accepted.ids {
            let served: Vec<_> = account.of(id).filter(|told| told.status == 200).collect();
            assert!(!served.is_empty(), "it is never served");
            let begun = served[0].begun;
            let wrong = served.iter().filter(|told| told.user() != Some(NOBODY));
            honoured.extend(wrong.map(|told| told.begun - begun));
            asked += 1;
        }
    }
    let times = honoured.len();
    let longest = honoured.iter().max().copied().unwrap_or_default();
    report(
        "edges",
        format!("started during a failover: {asked} sessions honoured {times} times, for {longest:.2?}"),
    );
    assert_eq!(times, 0, "for {longest:?}");
}

/// One vestibule may neither follow changes nor subscribe; the other one may.
#[tokio::test]
async fn what_is_answered_revoked_is_over_also_where_nothing_is_heard() {
    let (redis, instance) = (Redis::start().await, mirror());
    let rules = ["SETUSER", "deaf", "on", ">pass", "~*", "resetchannels", "+@all", "-client|tracking"];
    let () = redis.command("ACL", &rules[..]).await;
    let deaf_url = redis.url().replace("redis://", "redis://deaf:pass@");
    let deaf = Program::start(config(&instance, &deaf_url, "", "")).await;
    let hearing = vestibule(&instance, &redis.url(), "", "").await;
    let (mut connection, mut honoured, mut revoked) = (redis.connect().await, Vec::new(), 0);
    let tries = rounds(8, 50);
    for number in 0..tries {
        let id = &*format!("s{number}");
        put(&mut connection, id, &old_user(id), HOUR).await;
        let mut asker = Asker::connect(deaf.address).await;
        assert_eq!(owner(&mut asker, id).await, old_user(id));
        sleep(Duration::from_millis(300)).await; // whatever is noted of it has been noted
        let watch = Watch::start(deaf.address, &[id]);
        let (what, name) = if number % 2 == 0 { ("id", id.to_owned()) } else { ("user", old_user(id)) };
        let status = revoke(hearing.admin, what, &name).await.status;
        let answered = Instant::now();
        assert!(matches!(status, 200 | 202), "{status}");
        sleep(BOUND).await; // it has ended there as well
        let time = watch.end().await.honoured(id, &old_user(id), answered);
        if status == 200 {
            revoked += 1;
            honoured.push(time);
        }
    }
    let late = honoured.iter().filter(|time| **time > Duration::ZERO).count();
    let honoured = Spread::of(honoured);
    report(
        "edges",
        format!(
            "one that hears nothing: {revoked} of {tries} revoked, {late} of them honoured; for {honoured}"
        ),
    );
    assert_eq!(late, 0, "{honoured}");
}

/// When the last request was refused after the store had been silent for a while, with and without what the machine
/// kept from those who are to recover.
async fn heal(pace: Pace) -> [Duration; 2] {
    let (redis, instance) = (Redis::start().await, mirror());
    let fault = Fault::before(redis.address()).await;
    let program = vestibule(&instance, &fault.url(), "", "").await;
    put(&mut redis.connect().await, "s", &old_user("s"), HOUR).await;
    let watch = Watch::start(program.address, &["s"]);
    fault.set(Rules::SILENT);
    if fastrand::bool() {
        fault.cut();
    }
    // At any point of attempts to connect, which are taken and not answered.
    sleep(Duration::from_millis(fastrand::u64(500..8_000))).await;
    let healed = Instant::now();
    fault.set(Rules::default());
    sleep(2 * MAX_STALENESS).await; // it is well again
    let account = watch.end().await;
    let refused = account.of("s").filter(|told| told.status == 503);
    let last = refused.map(|told| told.begun.saturating_duration_since(healed)).max().unwrap_or_default();
    within("recovery", async {
        let mut asker = Asker::connect(program.address).await;
        while asker.ask("s").await.user() != Some("old-s") {}
    })
    .await;
    [last, pace.net(healed, last)]
}

#[tokio::test]
async fn users_are_served_soon_after_a_black_hole_heals() {
    let (mut holes, mut last, pace) = (JoinSet::new(), Vec::new(), Pace::start());
    for _ in 0..rounds(8, 52) {
        holes.spawn(heal(pace.clone()));
        if holes.len() >= 4 {
            last.push(holes.join_next().await.unwrap().unwrap());
        }
    }
    last.extend(holes.join_all().await);
    let goal = last.iter().filter(|[time, _]| *time > Duration::from_millis(300)).count();
    let net = Spread::of(last.iter().map(|[_, net]| *net));
    let last = Spread::of(last.into_iter().map(|[time, _]| time));
    report("edges", format!("last refusal after a black hole healed: {goal} later than 300ms; {last}"));
    assert!(net.most() <= Duration::from_secs(1), "{last}");
}

#[tokio::test]
async fn what_is_deleted_at_a_server_as_soon_as_it_is_primary_is_over_in_time() {
    let (mut sentinels, instance) = (Sentinels::start().await, mirror());
    sentinels.hurry(Duration::from_secs(1)).await;
    let program = Program::start(config(&instance, &sentinels.url(), "", "")).await;
    let mut honoured = Vec::new();
    for number in 0..rounds(4, 50) {
        let primary = sentinels.named_index(0).await;
        let preferred = (primary + 1) % 3;
        sentinels.complete(None, preferred).await;
        let id = format!("s{number}");
        put_everywhere(&sentinels, std::slice::from_ref(&id)).await;
        let mut asker = Asker::connect(program.address).await;
        assert_eq!(owner(&mut asker, &id).await, old_user(&id));
        let watch = Watch::start(program.address, &[&id]);
        sentinels.begin_failover().await;
        let key = format!("session:{id}");
        let new = &sentinels.redis[preferred];
        within("a primary", async {
            while attempt::<usize>(new, "DEL", &[&key]).await.is_none() {
                sleep(Duration::from_millis(1)).await; // leave the machine to the others
            }
        })
        .await;
        let deleted = Instant::now();
        sleep(3 * MAX_STALENESS).await; // the old one has been told, and what is promised has come true
        honoured.push(watch.end().await.honoured(&id, &old_user(&id), deleted));
        until("all to know", async || sentinels.named_index(0).await == preferred).await;
    }
    let late = honoured.iter().filter(|time| **time > MAX_STALENESS).count();
    let honoured = Spread::of(honoured);
    report("edges", format!("deleted at once after a promotion: {late} too long, honoured for {honoured}"));
    assert!(honoured.most() <= MAX_STALENESS, "{honoured}");
}
