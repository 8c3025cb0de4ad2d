//! With `on_outage = { stale = … }`: what is known to be over, or not known to go on, is not gone on with in an
//! outage.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

use super::{HOUR, Watch, old_user, owner, put, vestibule};
use crate::proofs::{report, rounds};
use crate::support::asker::{Asker, mirror};
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;

const OVER: [&str; 5] = ["over0", "over1", "over2", "over3", "over4"];

struct House {
    redis: MultiplexedConnection,
    fault: Fault,
    program: Program,
    _server: Redis,
    _instance: Service,
}

impl House {
    /// All sessions are known; `kept` is used all the time.
    async fn start() -> (Self, Watch) {
        let (server, instance) = (Redis::start().await, mirror());
        let fault = Fault::before(server.address()).await;
        let stale = "on_outage = { stale = \"5m\" }";
        let program = vestibule(&instance, &fault.url(), "idle_timeout = \"off\"", stale).await;
        let mut redis = server.connect().await;
        let mut asker = Asker::connect(program.address).await;
        for id in OVER.into_iter().chain(["kept"]) {
            put(&mut redis, id, &old_user(id), HOUR).await;
            assert_eq!(owner(&mut asker, id).await, old_user(id));
        }
        let watch = Watch::start(program.address, &["kept"]);
        (Self { redis, fault, program, _server: server, _instance: instance }, watch)
    }

    /// How many of those that are over are gone on with when the store has been silent for a while.
    async fn honoured_in_an_outage(self, watch: Watch) -> usize {
        self.fault.set(Rules::SILENT);
        sleep(Duration::from_millis(600)).await; // nothing is known for certain any more
        let (mut asker, mut honoured) = (Asker::connect(self.program.address).await, 0);
        for id in OVER {
            honoured += usize::from(asker.ask(id).await.user() == Some(old_user(id).as_str()));
        }
        assert_eq!(asker.ask("kept").await.user(), Some("old-kept"), "who is in use goes on");
        drop(watch.end().await);
        honoured
    }
}

#[tokio::test]
async fn sessions_that_a_flush_ended_do_not_come_back_in_an_outage() {
    let mut honoured = 0;
    let tries = rounds(2, 50);
    for _ in 0..tries {
        let (mut house, watch) = House::start().await;
        let mut flush = redis::pipe();
        flush.atomic().cmd("FLUSHDB").hset("session:kept", "user_id", "old-kept");
        let _: redis::Value = flush.query_async(&mut house.redis).await.unwrap();
        sleep(Duration::from_millis(500)).await; // that is known everywhere
        honoured += house.honoured_in_an_outage(watch).await;
    }
    let asked = tries * OVER.len();
    report("stale", format!("ended by a flush: {honoured} of {asked} gone on with in an outage"));
    assert_eq!(honoured, 0, "of {asked}");
}

#[tokio::test]
async fn sessions_deleted_in_a_short_gap_do_not_come_back_in_an_outage() {
    let mut honoured = 0;
    let tries = rounds(2, 50);
    for _ in 0..tries {
        let (mut house, watch) = House::start().await;
        house.fault.set(Rules::SILENT);
        house.fault.cut();
        let () = redis::cmd("DEL")
            .arg(&OVER.map(|id| format!("session:{id}"))[..])
            .query_async(&mut house.redis)
            .await
            .unwrap();
        sleep(Duration::from_millis(fastrand::u64(100..900))).await; // shorter than what is tolerated
        house.fault.set(Rules::default());
        sleep(Duration::from_millis(500)).await; // for connections to come back
        house.program.wait_for_fresh_cache().await;
        sleep(Duration::from_millis(1_500)).await; // all is well for some time
        honoured += house.honoured_in_an_outage(watch).await;
    }
    let asked = tries * OVER.len();
    report("stale", format!("deleted in a gap: {honoured} of {asked} gone on with in an outage"));
    assert_eq!(honoured, 0, "of {asked}");
}
