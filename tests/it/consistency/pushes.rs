//! That Redis answers proves nothing about what it tells unasked: changes whose news do not come count all the
//! same.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{BOUND, HOUR, MAX_STALENESS, Watch, config, new_user, old_user, put, vestibule};
use crate::proofs::{Spread, report, rounds};
use crate::support::asker::{Asker, mirror};
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::vestibule::Program;
use crate::support::{metrics, within};

const LOST: Rules =
    Rules { drops_pushes: true, holds_requests: false, holds_replies: false, ..Rules::SILENT };
const UNTRACKED: Rules =
    Rules { swallows_tracking: true, holds_requests: false, holds_replies: false, ..Rules::SILENT };

/// Sessions that change one after the other while no news come.
const SESSIONS: usize = 3;

/// How long each of a few sessions is honoured that change while this is so, from the start or from later on.
async fn change_unheard(rules: Rules, is_from_the_start: bool) -> Vec<Duration> {
    let (redis, instance) = (Redis::start().await, mirror());
    let fault = Fault::before(redis.address()).await;
    let (mut connection, mut honoured) = (redis.connect().await, Vec::new());
    if is_from_the_start {
        fault.set(rules);
    }
    let program = Program::start(config(&instance, &fault.url(), "idle_timeout = \"off\"", "")).await;
    let mut asker = Asker::connect(program.address).await;
    put(&mut connection, "first", &old_user("first"), HOUR).await;
    within("the store", async {
        while asker.ask("first").await.user().is_none() {
            sleep(Duration::from_millis(5)).await; // refusals are quick; leave the machine to the others
        }
    })
    .await;
    sleep(Duration::from_millis(300)).await; // the cache is in use, if it ever is
    fault.set(rules);
    for number in 0..SESSIONS {
        let id = &*format!("s{number}");
        put(&mut connection, id, &old_user(id), HOUR).await;
        let watch = Watch::start(program.address, &[id]);
        sleep(Duration::from_millis(fastrand::u64(100..600))).await; // at any point of what goes on
        put(&mut connection, id, &new_user(id), HOUR).await;
        let changed = Instant::now();
        sleep(BOUND + Duration::from_millis(400)).await; // what is promised has come true
        honoured.push(watch.end().await.honoured(id, &old_user(id), changed));
    }
    let linked = metrics::read(program.admin, "session_cache_linked", "").await;
    let fresh = metrics::read(program.admin, "session_cache_fresh", "").await;
    report("pushes", format!("in the end session_cache_linked {linked}, session_cache_fresh {fresh}"));
    honoured
}

async fn changes_count(what: &str, rules: Rules, is_from_the_start: bool) {
    let mut honoured = Vec::new();
    for _ in 0..rounds(1, 17) {
        honoured.extend(change_unheard(rules, is_from_the_start).await);
    }
    let too_long = honoured.iter().filter(|time| **time > BOUND).count();
    let honoured = Spread::of(honoured);
    report("pushes", format!("{what}: {too_long} honoured too long, for {honoured}"));
    assert_eq!(too_long, 0, "{honoured}");
}

#[tokio::test]
async fn changes_count_when_their_news_are_lost_from_some_time_on() {
    changes_count("lost later", LOST, false).await;
}

#[tokio::test]
async fn changes_count_when_no_news_ever_come() {
    changes_count("lost from the start", LOST, true).await;
}

#[tokio::test]
async fn changes_count_when_tracking_was_only_said_to_be_on() {
    changes_count("untracked", UNTRACKED, true).await;
}

#[tokio::test]
async fn the_delay_of_news_is_measured_all_the_time() {
    const METRIC: &str = "session_invalidation_delay_seconds";
    let (redis, instance) = (Redis::start().await, mirror());
    let program = vestibule(&instance, &redis.url(), "", "").await;
    let read = async |suffix: &str| metrics::read(program.admin, &format!("{METRIC}{suffix}"), "").await;
    within(METRIC, async {
        while read("_count").await == 0.0 {
            sleep(Duration::from_millis(20)).await; // numbers are for asking, not for waiting
        }
    })
    .await;
    let (count, sum) = (read("_count").await, read("_sum").await);
    sleep(3 * MAX_STALENESS).await; // none may change unproven for longer than one
    let (count, sum) = (read("_count").await - count, read("_sum").await - sum);
    report("pushes", format!("{count} delays measured in three times max_staleness, {sum} s together"));
    assert!(count >= 3.0 && sum > 0.0 && sum < count, "{count} in {sum} s");
}
