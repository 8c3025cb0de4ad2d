//! "Revoked" means that every server that may become the primary has it, whichever those are; as long as one does
//! not, or may not, the answer is "accepted", with one reason.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;

use super::{HOUR, Revoked, config, owner, put, revoke};
use crate::proofs::{report, rounds};
use crate::support::asker::{Asker, NOBODY, mirror};
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::{Sentinels, until};
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// Sessions revoked one after the other while nothing else changes.
const REVOKED: usize = 4;

/// What is wrong with the replicas while sessions are revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    Nothing,
    /// The one that can be promoted is refused, and one that cannot be follows.
    OnlyBackupFollows,
    /// One has come that the sentinels have not heard of, and hears nothing more.
    Newcomer,
    /// One has come that the sentinels have not heard of, and is refused.
    NewcomerRefused,
    /// One has come that the sentinels have not heard of, and follows; another one is refused.
    NewcomerFollows,
    /// The one that does not follow is not announced.
    Unannounced,
    /// One is away for so long that the sentinels call it down.
    Away,
}

struct House {
    sentinels: Sentinels,
    newcomer: Option<(Redis, Fault)>,
    instance: Service,
    program: Program,
}

fn user(id: &str) -> String {
    format!("user-of-{id}")
}

async fn set(redis: &Redis, name: &str, value: &str) {
    let () = redis.command("CONFIG", &["SET", name, value][..]).await;
}

/// Has the primary refuse this replica, which goes on asking, and lets the others come back.
pub(super) async fn refuse(primary: &Redis, replica: &Redis, following: usize) {
    set(replica, "masteruser", "nobody-knows").await;
    set(replica, "masterauth", "this-one").await;
    let _: redis::Value = primary.command("CLIENT", &["KILL", "TYPE", "replica"][..]).await;
    until("the refusal", async || {
        let at_replica: String = replica.command("INFO", "replication").await;
        let at_primary: String = primary.command("INFO", "replication").await;
        at_replica.contains("master_link_status:down")
            && at_primary.matches("state=online").count() == following
    })
    .await;
}

impl House {
    async fn start() -> Self {
        let (sentinels, instance) = (Sentinels::start().await, mirror());
        sentinels.hurry(Duration::from_secs(2)).await;
        let program = Program::start(config(&instance, &sentinels.url(), "", "")).await;
        Self { sentinels, newcomer: None, instance, program }
    }

    /// Sessions that all servers have and vestibule has seen.
    async fn put_all(&self) -> Vec<String> {
        let ids: Vec<String> = (0..REVOKED).map(|session| format!("s{session}")).collect();
        let mut primary = self.sentinels.redis[0].connect().await;
        for id in &ids {
            put(&mut primary, id, &user(id), HOUR).await;
        }
        within("the replicas", async {
            let mut wait = redis::cmd("WAIT");
            wait.arg(2).arg(400);
            while wait.query_async::<usize>(&mut primary).await.unwrap() < 2 {}
        })
        .await;
        let mut asker = Asker::connect(self.program.address).await;
        for id in &ids {
            assert_eq!(owner(&mut asker, id).await, user(id));
        }
        ids
    }

    /// Waits until all sentinels say this of their replicas.
    async fn until_known(&self, is_so: impl Fn(&[HashMap<String, String>]) -> bool) {
        for index in 0..3 {
            until("the sentinels to know", async || is_so(&self.sentinels.replicas(index).await)).await;
        }
    }

    /// The replica 1 is the one that misses what follows.
    async fn bring_about(&mut self, lack: Lack) {
        let [primary, missing, backup] = &self.sentinels.redis[..] else { panic!("three servers") };
        match lack {
            Lack::Nothing => (),
            Lack::OnlyBackupFollows => {
                set(backup, "replica-priority", "0").await;
                self.until_known(|replicas| replicas.iter().any(|one| one["slave-priority"] == "0")).await;
                refuse(primary, missing, 1).await;
            }
            Lack::Newcomer | Lack::NewcomerRefused | Lack::NewcomerFollows => {
                // Sentinels ask every ten seconds; so long nobody has told them.
                self.sentinels.hurry_no_more().await;
                let (newcomer, wire) = (Redis::start().await, Fault::before(primary.address()).await);
                let preferred = if lack == Lack::NewcomerFollows { missing } else { &newcomer };
                set(preferred, "replica-priority", "1").await;
                let () = newcomer.command("REPLICAOF", ("127.0.0.1", wire.address().port())).await;
                until("replication", async || {
                    newcomer.command::<String>("INFO", "replication").await.contains("master_link_status:up")
                })
                .await;
                sleep(Duration::from_millis(300)).await; // who looks at the primary sees it
                match lack {
                    Lack::Newcomer => wire.set(Rules { holds_replies: true, ..Rules::default() }),
                    Lack::NewcomerFollows => refuse(primary, missing, 2).await,
                    _ => refuse(primary, &newcomer, 2).await,
                }
                self.newcomer = Some((newcomer, wire));
            }
            Lack::Unannounced => {
                set(missing, "replica-priority", "1").await;
                set(missing, "replica-announced", "no").await;
                self.until_known(|replicas| replicas.len() == 1).await;
                refuse(primary, missing, 1).await;
            }
            Lack::Away => {
                set(missing, "replica-priority", "1").await;
                self.until_known(|replicas| replicas.iter().any(|one| one["slave-priority"] == "1")).await;
                missing.freeze();
                self.until_known(|replicas| replicas.iter().any(|one| one["flags"].contains("s_down"))).await;
                let _: redis::Value = primary.command("CLIENT", &["KILL", "TYPE", "replica"][..]).await;
                until("the other to come back", async || {
                    let info: String = primary.command("INFO", "replication").await;
                    info.matches("state=online").count() == 1
                })
                .await;
                sleep(Duration::from_secs(1)).await; // longer than sentinels wait for anybody
            }
        }
    }

    /// Kills the primary, lets the missing one come back, and asks a vestibule that has known nothing.
    async fn honoured_after_a_failover(&mut self, lack: Lack, ids: &[String]) -> usize {
        let before = self.sentinels.named(0).await;
        // Nobody tells the new primary what has been revoked.
        self.program.process.signal("KILL");
        if matches!(lack, Lack::Newcomer | Lack::NewcomerFollows) {
            self.sentinels.hurry(Duration::from_secs(2)).await;
            self.until_known(|replicas| replicas.len() == 3).await;
        }
        if lack != Lack::Away {
            // The sentinels have heard which is preferred.
            sleep(Duration::from_millis(500)).await;
        }
        self.sentinels.redis[0].stop();
        if lack == Lack::Away {
            self.sentinels.redis[1].thaw();
        }
        self.sentinels.until_replaced(before).await;
        let stranger = Program::start(config(&self.instance, &self.sentinels.url(), "", "")).await;
        let (mut asker, mut honoured) = (Asker::connect(stranger.address).await, 0);
        for id in ids {
            honoured += usize::from(owner(&mut asker, id).await != NOBODY);
        }
        honoured
    }
}

async fn revoke_with(lack: Lack) -> (Vec<Revoked>, usize) {
    let mut house = House::start().await;
    let ids = house.put_all().await;
    house.bring_about(lack).await;
    let mut answers = Vec::new();
    for id in &ids {
        answers.push(revoke(house.program.admin, "id", id).await);
    }
    let honoured = house.honoured_after_a_failover(lack, &ids).await;
    (answers, honoured)
}

async fn what_is_answered_is_true(lack: Lack) {
    let (mut revoked, mut accepted, mut undone, mut reasons) = (0, 0, 0, Vec::new());
    for _ in 0..rounds(1, 13) {
        let (answers, honoured) = revoke_with(lack).await;
        revoked += answers.iter().filter(|answer| answer.status == 200).count();
        let of_these: Vec<&Revoked> = answers.iter().filter(|answer| answer.status == 202).collect();
        accepted += of_these.len();
        reasons.extend(of_these.iter().map(|answer| answer.reason.clone()));
        if of_these.is_empty() {
            undone += honoured;
        }
        assert_eq!(answers.len(), REVOKED);
        assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 202)), "{answers:?}");
    }
    reasons.sort();
    reasons.dedup();
    report(
        "replicas",
        format!(
            "{lack:?}: {revoked} revoked, {undone} of them undone by a failover; {accepted} accepted: {reasons:?}"
        ),
    );
    assert_eq!(undone, 0, "revoked means for good");
    match lack {
        Lack::Nothing => assert_eq!(accepted, 0, "{reasons:?}"),
        _ => assert_eq!(revoked, 0, "a server that may become the primary does not have it"),
    }
    assert!(reasons.len() <= 1, "one fault, one reason: {reasons:?}");
}

#[tokio::test]
async fn with_all_in_step_revoked_is_for_good() {
    what_is_answered_is_true(Lack::Nothing).await;
}

#[tokio::test]
async fn a_backup_that_has_it_does_not_stand_for_a_replica_that_has_not() {
    what_is_answered_is_true(Lack::OnlyBackupFollows).await;
}

#[tokio::test]
async fn a_replica_that_sentinels_have_not_heard_of_counts() {
    what_is_answered_is_true(Lack::Newcomer).await;
}

#[tokio::test]
async fn a_replica_that_sentinels_have_not_heard_of_does_not_stand_for_another() {
    what_is_answered_is_true(Lack::NewcomerFollows).await;
}

#[tokio::test]
async fn a_replica_that_came_and_was_lost_before_sentinels_have_heard_of_it_counts() {
    what_is_answered_is_true(Lack::NewcomerRefused).await;
}

#[tokio::test]
async fn a_replica_that_is_not_announced_counts() {
    what_is_answered_is_true(Lack::Unannounced).await;
}

#[tokio::test]
async fn a_replica_that_is_away_may_come_back_and_counts() {
    what_is_answered_is_true(Lack::Away).await;
}
