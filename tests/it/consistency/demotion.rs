//! A server that has been told to follow another one knows neither who is logged in nor who is not.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{BOUND, HOUR, Watch, new_user, old_user, put, vestibule};
use crate::proofs::{report, rounds};
use crate::support::asker::{Asker, NOBODY, Told, mirror};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::until;
use crate::support::{RefusedPort, within};

/// What becomes of the old primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is to follow one that it cannot reach.
    Stuck,
    /// It waits for the contents of the new one, for seconds.
    Waiting,
    /// It gets them at once.
    InStep,
    /// It hands over to its replica.
    HandedOver,
}

const FATES: [Fate; 4] = [Fate::Stuck, Fate::Waiting, Fate::InStep, Fate::HandedOver];

/// What was seen of a demotion.
struct Seen {
    /// How long the session deleted at the new primary was honoured.
    honoured: Duration,
    /// Answers to the one created there as if it had ended, and all.
    taken_for_ended: usize,
    asked: usize,
}

async fn replicate(replica: &Redis, primary: &Redis) {
    let () = primary.command("CONFIG", &["SET", "repl-diskless-sync-delay", "0"][..]).await;
    let () = replica.command("REPLICAOF", ("127.0.0.1", primary.address().port())).await;
    until("replication", async || {
        replica.command::<String>("INFO", "replication").await.contains("master_link_status:up")
    })
    .await;
}

async fn demote(fate: Fate, names_both: bool) -> Seen {
    let (old, new, dead_end) = (Redis::start().await, Redis::start().await, RefusedPort::new());
    let mut at_old = old.connect().await;
    for id in ["kept", "gone"] {
        put(&mut at_old, id, &old_user(id), HOUR).await;
    }
    replicate(&new, &old).await;
    let mut at_new = new.connect().await;
    if !names_both && fate != Fate::HandedOver {
        let () = new.command("REPLICAOF", &["NO", "ONE"][..]).await;
    }
    let instance = mirror();
    let url = match names_both {
        true => format!("redis://{},{}/0", old.address(), new.address()),
        false => old.url(),
    };
    let program = vestibule(&instance, &url, "idle_timeout = \"off\"", "").await;
    let watch = Watch::start(program.address, &["kept", "gone"]);
    sleep(Duration::from_millis(300)).await; // both are cached

    let delay = if fate == Fate::Waiting { "5" } else { "0" };
    let () = new.command("CONFIG", &["SET", "repl-diskless-sync-delay", delay][..]).await;
    if fate == Fate::HandedOver {
        let () = old.command("FAILOVER", &["TO", "127.0.0.1", &new.address().port().to_string()][..]).await;
        until("the hand-over", async || {
            new.command::<String>("INFO", "replication").await.contains("role:master")
        })
        .await;
    } else {
        let to = if fate == Fate::Stuck { dead_end.address() } else { new.address() };
        let () = new.command("REPLICAOF", &["NO", "ONE"][..]).await;
        let () = old.command("REPLICAOF", ("127.0.0.1", to.port())).await;
    }
    let () = redis::cmd("DEL").arg("session:gone").query_async(&mut at_new).await.unwrap();
    let deleted = Instant::now();
    put(&mut at_new, "made", &new_user("made"), HOUR).await;
    let newcomer = Watch::start(program.address, &["made"]);
    sleep(BOUND + Duration::from_millis(700)).await; // what is promised has come true
    let (account, newcomer) = (watch.end().await, newcomer.end().await);
    assert_eq!(account.of("kept").filter(|told| told.user() == Some(NOBODY)).count(), 0, "{fate:?}");

    if !names_both {
        let () = old.command("REPLICAOF", &["NO", "ONE"][..]).await;
    }
    let there = if names_both { ("made", new_user("made")) } else { ("kept", old_user("kept")) };
    let mut asker = Asker::connect(program.address).await;
    within("all to be well", async {
        while asker.ask(there.0).await.user() != Some(&there.1) {
            sleep(Duration::from_millis(5)).await; // refusals are quick; leave the machine to the others
        }
    })
    .await;
    let is_ended = |told: &&Told| told.clears_cookie || told.user() == Some(NOBODY);
    Seen {
        honoured: account.honoured("gone", &old_user("gone"), deleted),
        taken_for_ended: newcomer.of("made").filter(is_ended).count(),
        asked: newcomer.of("made").count(),
    }
}

async fn demote_all(names_both: bool) -> Vec<(Fate, Seen)> {
    let (tries, mut all) = (rounds(1, 13), Vec::new());
    for fate in FATES {
        for _ in 0..tries {
            let seen = demote(fate, names_both).await;
            report(
                "demotion",
                format!(
                    "{fate:?}, {} named: deleted one honoured for {:.2?}, created one taken for ended {} of {} times",
                    if names_both { "both" } else { "one" },
                    seen.honoured,
                    seen.taken_for_ended,
                    seen.asked
                ),
            );
            all.push((fate, seen));
        }
    }
    all
}

fn judge(all: &[(Fate, Seen)]) {
    let honoured: Vec<_> =
        all.iter().filter(|(_, seen)| seen.honoured > BOUND).map(|(fate, _)| fate).collect();
    let ended: Vec<_> =
        all.iter().filter(|(_, seen)| seen.taken_for_ended > 0).map(|(fate, _)| fate).collect();
    assert!(
        honoured.is_empty() && ended.is_empty(),
        "honoured too long: {honoured:?}; taken for ended: {ended:?}"
    );
}

#[tokio::test]
async fn a_server_demoted_in_place_says_neither_that_a_session_lives_nor_that_it_ended() {
    judge(&demote_all(false).await);
}

#[tokio::test]
async fn of_two_servers_that_change_places_the_demoted_one_says_neither() {
    judge(&demote_all(true).await);
}
