//! Behind one address, as a virtual IP or a balancer of connections gives to several servers, new connections may
//! lead to another server than those that are kept; the old one goes on as a master. Who asks it is told what has
//! been true once.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{BOUND, HOUR, Watch, new_user, old_user, put, vestibule};
use crate::proofs::{Spread, report, rounds};
use crate::support::asker::{Asker, mirror};
use crate::support::fault::Fault;
use crate::support::redis::Redis;
use crate::support::within;

/// Whose connections to the old server end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Tracking,
    AllOthers,
    None,
}

/// Ends connections of clients other than this one.
async fn cut(redis: &Redis, cut: Cut) {
    let list: String = redis.command("CLIENT", "LIST").await;
    for line in list.lines().filter(|line| !line.contains("cmd=client|list")) {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
        let is_tracking = field("flags=").contains('t');
        if is_tracking == (cut == Cut::Tracking) && cut != Cut::None {
            let _: redis::Value = redis.command("CLIENT", &["KILL", "ID", field("id=")][..]).await;
        }
    }
}

/// How long a session is honoured after it was given to somebody else at the new server, and how long after the
/// move somebody was told what only the old one says.
async fn move_away(whose: Cut) -> (Duration, Duration) {
    let (old, new, instance) = (Redis::start().await, Redis::start().await, mirror());
    let mut at_new = new.connect().await;
    for redis in [&mut old.connect().await, &mut at_new] {
        put(redis, "s", &old_user("s"), HOUR).await;
        put(redis, "late", &old_user("late"), HOUR).await;
    }
    let fault = Fault::before(old.address()).await;
    let program = vestibule(&instance, &fault.url(), "idle_timeout = \"off\"", "").await;
    let watch = Watch::start(program.address, &["s"]);
    sleep(Duration::from_millis(300)).await; // it is cached
    fault.lead_new(new.address());
    cut(&old, whose).await;
    let moved = Instant::now();
    sleep(Duration::from_millis(fastrand::u64(..500))).await; // at any point of what follows
    put(&mut at_new, "s", &new_user("s"), HOUR).await;
    let changed = Instant::now();
    put(&mut old.connect().await, "late", "told by the old server", HOUR).await;
    let late = Watch::start(program.address, &["late"]);
    sleep(BOUND + Duration::from_millis(700)).await; // what is promised has come true
    let (account, late) = (watch.end().await, late.end().await);
    (account.honoured("s", &old_user("s"), changed), late.honoured("late", "told by the old server", moved))
}

async fn nobody_asks_the_old_one(whose: Cut) {
    let (mut honoured, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..rounds(2, 17) {
        let (session, late) = move_away(whose).await;
        honoured.push(session);
        asked.push(late);
    }
    let too_long = honoured.iter().filter(|time| **time > BOUND).count();
    let (honoured, asked) = (Spread::of(honoured), Spread::of(asked));
    report("one address", format!("{whose:?} cut: {too_long} honoured too long, for {honoured}"));
    report("one address", format!("{whose:?} cut: asked the old server for {asked}"));
    assert!(honoured.most() <= BOUND && asked.most() <= BOUND, "{honoured}; {asked}");
}

#[tokio::test]
async fn when_the_link_for_changes_moves_look_ups_move_with_it() {
    nobody_asks_the_old_one(Cut::Tracking).await;
}

#[tokio::test]
async fn when_look_ups_move_the_link_for_changes_moves_with_them() {
    nobody_asks_the_old_one(Cut::AllOthers).await;
}

#[tokio::test]
async fn when_only_new_connections_would_lead_elsewhere_that_is_noticed() {
    nobody_asks_the_old_one(Cut::None).await;
}

/// The server that took the address for a while follows the first one afterwards, and goes on to answer whoever is
/// still connected.
#[tokio::test]
async fn when_the_address_leads_back_users_are_served_again() {
    let (first, second, instance) = (Redis::start().await, Redis::start().await, mirror());
    for redis in [&first, &second] {
        put(&mut redis.connect().await, "s", &old_user("s"), HOUR).await;
    }
    let fault = Fault::before(first.address()).await;
    let program = vestibule(&instance, &fault.url(), "", "").await;
    let mut asker = Asker::connect(program.address).await;
    fault.lead(second.address());
    within("the second server", async { while asker.ask("s").await.user().is_none() {} }).await;
    sleep(BOUND).await; // every connection leads there
    let first_at = first.address();
    let () = second.command("REPLICAOF", (first_at.ip().to_string(), first_at.port())).await;
    within("the refusal", async { while asker.ask("s").await.user().is_some() {} }).await;
    fault.lead_new(first_at);
    within("the first server", async {
        while asker.ask("s").await.user().is_none() {
            sleep(Duration::from_millis(5)).await; // refusals are quick; leave the machine to the others
        }
    })
    .await;
    assert_eq!(asker.ask("s").await.user(), Some(old_user("s").as_str()));
}
