//! The servers of a store, the wires to them, and two vestibules that use it.

use std::net::SocketAddr;
use std::time::Duration;

use super::clients::TOKEN;
use super::plan::{Plan, Topology};
use super::world::{Seat, VESTIBULES, World};
use crate::support::asker::mirror;
use crate::support::config::Config;
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::{Sentinels, until};
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// What is acknowledged is on disk.
const DURABLE: &[&str] =
    &["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"];

pub(super) enum Servers {
    /// A primary and its replica.
    Pair(Vec<Redis>),
    Sentinels(Sentinels),
}

pub(super) struct House {
    pub(super) servers: Servers,
    /// The one whose word counts, among the servers.
    pub(super) primary: usize,
    /// For each vestibule, to each of the addresses that it knows.
    wires: Vec<Vec<Fault>>,
    instance: Service,
    tables: String,
    pub(super) programs: Vec<Program>,
}

impl House {
    pub(super) async fn start(plan: &Plan) -> Self {
        let servers = match plan.topology {
            Topology::Sentinel => {
                let sentinels = Sentinels::start().await;
                sentinels.hurry(Duration::from_secs(2)).await;
                Servers::Sentinels(sentinels)
            }
            _ => Servers::Pair(pair().await),
        };
        let mut wires = Vec::new();
        for _ in 0..VESTIBULES {
            let mut own = Vec::new();
            if let Servers::Pair(pair) = &servers {
                let known = if plan.topology == Topology::Hosts { 2 } else { 1 };
                for redis in &pair[..known] {
                    own.push(Fault::before(redis.address()).await);
                }
            }
            wires.push(own);
        }
        let idle = plan.idle.map_or("off".to_owned(), |idle| format!("{idle}s"));
        let policy = if plan.goes_on { "{ stale = \"5m\" }" } else { "\"deny\"" };
        let tables = format!(
            "[access_log]\noutput = \"off\"\n[session]\nidle_timeout = \"{idle}\"\n\
             [session.store]\non_outage = {policy}\n"
        );
        let (instance, programs) = (mirror(), Vec::new());
        let mut house = Self { servers, primary: 0, wires, instance, tables, programs };
        for vestibule in 0..VESTIBULES {
            house.programs.push(house.vestibule(vestibule).await);
        }
        house
    }

    async fn vestibule(&self, number: usize) -> Program {
        let tables = format!("{}url = \"{}\"", self.tables, self.url(number));
        let config = Config::to(&[self.instance.address()]).workers(2).with(&tables);
        let program = Program::start(config.token(TOKEN)).await;
        program.wait_for_fresh_cache().await;
        program
    }

    fn url(&self, vestibule: usize) -> String {
        match &self.servers {
            Servers::Sentinels(sentinels) => sentinels.url(),
            Servers::Pair(_) => {
                let wires: Vec<String> =
                    self.wires[vestibule].iter().map(|wire| wire.address().to_string()).collect();
                format!("redis://{}/0", wires.join(","))
            }
        }
    }

    pub(super) fn seat(&self, vestibule: usize) -> Seat {
        let Program { address, admin, .. } = self.programs[vestibule];
        Seat { address, admin }
    }

    /// Ends a vestibule and starts another one in its place.
    pub(super) async fn replace(&mut self, world: &World, vestibule: usize) {
        self.programs[vestibule].process.signal("KILL"); // it may have ended already
        self.programs[vestibule] = self.vestibule(vestibule).await;
        world.move_to(vestibule, self.seat(vestibule));
    }

    pub(super) fn server(&self, index: usize) -> &Redis {
        match &self.servers {
            Servers::Pair(pair) => &pair[index],
            Servers::Sentinels(sentinels) => &sentinels.redis[index],
        }
    }

    pub(super) fn primary(&self) -> &Redis {
        self.server(self.primary)
    }

    /// The other one of two.
    pub(super) fn other(&self) -> &Redis {
        self.server(1 - self.primary)
    }

    /// Kills the primary and brings it back with all that it acknowledged.
    pub(super) async fn restart_primary(&mut self, after: Duration) {
        let Servers::Pair(pair) = &mut self.servers else { return };
        pair[self.primary].stop();
        tokio::time::sleep(after).await; // an outage
        pair[self.primary].restart().await;
    }

    /// The wires of one vestibule or all.
    pub(super) fn wires(&self, on: Option<usize>) -> impl Iterator<Item = &Fault> {
        let concerned =
            self.wires.iter().enumerate().filter(move |(number, _)| on.is_none_or(|on| on == *number));
        concerned.flat_map(|(_, wires)| wires)
    }

    pub(super) fn set(&self, on: Option<usize>, rules: Rules) {
        self.wires(on).for_each(|wire| wire.set(rules));
    }

    pub(super) fn cut(&self, on: Option<usize>) {
        self.wires(on).for_each(Fault::cut);
    }
}

/// A primary, and a replica that has what it has.
async fn pair() -> Vec<Redis> {
    let pair = vec![Redis::start_with(DURABLE).await, Redis::start_with(DURABLE).await];
    follow(&pair[1], pair[0].address()).await;
    pair
}

/// Makes a server a replica, and waits until it has all.
pub(super) async fn follow(replica: &Redis, primary: SocketAddr) {
    let () = replica.command("REPLICAOF", (primary.ip().to_string(), primary.port())).await;
    until("replication", async || {
        replica.command::<String>("INFO", "replication").await.contains("master_link_status:up")
    })
    .await;
}

/// Makes a server a primary.
pub(super) async fn lead(server: &Redis) {
    let () = server.command("REPLICAOF", ("NO", "ONE")).await;
}

/// Waits until the replica of a primary has all that was written.
pub(super) async fn catch_up(primary: &Redis) {
    let mut connection = primary.connect().await;
    within("the replica", async {
        loop {
            let mut wait = redis::pipe();
            wait.set("mark", 1).ignore().cmd("WAIT").arg(1).arg(300);
            if wait.query_async::<(usize,)>(&mut connection).await.unwrap().0 == 1 {
                return;
            }
        }
    })
    .await;
}
