//! When the primary dies or freezes under load, nobody is logged out, nobody becomes somebody else, and what a
//! cache knew is not gone on with: an answer is right or is a 503.

use std::cell::Cell;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Pace, Spread, report, rounds, scaled};
use crate::support::asker::{Asker, Told, mirror};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_sentinel::{Sentinels, attempt, until};
use crate::support::service::Service;
use crate::support::vestibule::Program;

/// The default of `max_staleness`.
const MAX_STALENESS: Duration = Duration::from_secs(1);
/// How long after another primary took its first write requests may still be refused.
const MAX_RECOVERY: Duration = Duration::from_secs(3);
/// Sessions before anything goes wrong; more are added as long as the primary lives.
const SESSIONS: usize = 60;
/// Clients of each vestibule who ask all the time.
const ASKERS: usize = 4;
/// Sessions that are used so often that they are always in the caches.
const CACHED: usize = 6;
/// How long the servers that are not replaced are out.
const OUTAGE: Duration = Duration::from_millis(1_500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Killed,
    Frozen,
}

/// The servers of a store; the first one is the primary that is in for trouble.
enum Servers {
    Standalone(Redis),
    Sentinel(Sentinels),
    Cluster(Cluster),
}

impl Servers {
    fn url(&self) -> String {
        match self {
            Servers::Standalone(redis) => redis.url(),
            Servers::Sentinel(sentinels) => sentinels.url(),
            Servers::Cluster(cluster) => cluster.url(),
        }
    }

    fn first(&mut self) -> &mut Redis {
        match self {
            Servers::Standalone(redis) => redis,
            Servers::Sentinel(sentinels) => &mut sentinels.redis[0],
            Servers::Cluster(cluster) => &mut cluster.nodes[0],
        }
    }

    /// How many replicas the first one has.
    fn replicas(&self) -> usize {
        match self {
            Servers::Standalone(_) => 0,
            Servers::Sentinel(_) => 2,
            Servers::Cluster(_) => 1,
        }
    }

    async fn strike(&mut self, trouble: Trouble) {
        if let Servers::Standalone(redis) = self {
            redis.save().await;
        }
        match trouble {
            Trouble::Killed => self.first().stop(),
            Trouble::Frozen => self.first().freeze(),
        }
    }

    /// Ends the trouble of a server that was struck.
    async fn end(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Killed => self.first().restart().await,
            Trouble::Frozen => self.first().thaw(),
        }
    }

    /// A key that the first server takes.
    async fn key(&self) -> String {
        match self {
            Servers::Cluster(cluster) => cluster.name_in(0, "").await,
            _ => "any".to_owned(),
        }
    }

    /// Waits until another one has taken a write of `key` in the place of the first; returns when none would yet.
    async fn until_writable(&mut self, key: &str, trouble: Trouble) -> Instant {
        let replicas = match self {
            Servers::Standalone(_) => {
                sleep(OUTAGE).await;
                let last = Instant::now();
                self.end(trouble).await;
                return last;
            }
            Servers::Sentinel(sentinels) => &sentinels.redis[1..],
            Servers::Cluster(cluster) => &cluster.nodes[3..4],
        };
        let last = Cell::new(Instant::now());
        until("a write", async || {
            let begun = Instant::now();
            for replica in replicas {
                if attempt::<()>(replica, "SET", &[key, "1"]).await.is_some() {
                    return true;
                }
            }
            last.set(begun);
            false
        })
        .await;
        last.get()
    }
}

/// A session and whether it was on the first server.
#[derive(Clone)]
struct Put {
    id: String,
    is_struck: bool,
}

/// Sessions that were written and replicated, more and more of them.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<Vec<Put>>>);

impl Sessions {
    /// Any of the first so many.
    fn any(&self, first: usize) -> Put {
        let all = self.0.lock().unwrap();
        all[fastrand::usize(..all.len().min(first))].clone()
    }

    fn all(&self) -> Vec<Put> {
        self.0.lock().unwrap().clone()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Writes one to this server and waits for its replicas; false when they, or it, did not say so.
    async fn put(&self, number: usize, server: &mut MultiplexedConnection, replicas: usize) -> bool {
        let id = format!("s{number}");
        let mut write = redis::pipe();
        write.hset(format!("session:{id}"), "user_id", user(&id));
        write.pexpire(format!("session:{id}"), 1_500_000);
        let written: redis::RedisResult<()> = write.query_async(server).await;
        if written.is_err() {
            return false;
        }
        let mut wait = redis::cmd("WAIT");
        let confirmed: redis::RedisResult<usize> = wait.arg(replicas).arg(400).query_async(server).await;
        confirmed.is_ok_and(|confirmed| confirmed >= replicas)
    }

    fn add(&self, number: usize, is_struck: bool) {
        self.0.lock().unwrap().push(Put { id: format!("s{number}"), is_struck });
    }
}

fn user(id: &str) -> String {
    format!("user-of-{id}")
}

async fn vestibule(instance: &Service, url: &str) -> Program {
    let tables = format!("[access_log]\noutput = \"off\"\n[session.store]\nurl = \"{url}\"");
    Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await
}

/// Asks as the owner of any of the first so many sessions until told to stop; each must be its owner or refused.
async fn ask_always(
    address: SocketAddr,
    sessions: Sessions,
    first: usize,
    over: watch::Receiver<bool>,
) -> Vec<(bool, Told)> {
    let (mut asker, mut all) = (Asker::connect(address).await, Vec::new());
    while !*over.borrow() {
        let put = sessions.any(first);
        let told = asker.ask(&put.id).await;
        assert!(!told.clears_cookie, "{}: {told:?}", put.id);
        match told.user() {
            Some(name) => assert_eq!(name, user(&put.id), "{told:?}"),
            None => sleep(Duration::from_millis(1)).await, // refusals are quick; leave the machine to the others
        }
        all.push((put.is_struck, told));
    }
    all
}

/// Adds sessions to the first server until it takes none any more.
async fn add_always(mut server: MultiplexedConnection, sessions: Sessions, replicas: usize) {
    for number in SESSIONS.. {
        let mut is_there = redis::cmd("EXISTS");
        let is_there: redis::RedisResult<bool> =
            is_there.arg(format!("session:s{number}")).query_async(&mut server).await;
        match is_there {
            Err(error) if error.code() == Some("MOVED") => continue,
            Ok(_) if sessions.put(number, &mut server, replicas).await => sessions.add(number, true),
            _ => return,
        }
        sleep(Duration::from_millis(5)).await; // the other processes need the machine as well
    }
}

/// Writes the first sessions wherever they belong.
async fn put_first(servers: &Servers) -> Sessions {
    let (sessions, replicas) = (Sessions::default(), servers.replicas());
    let mut connections = BTreeMap::new();
    for number in 0..SESSIONS {
        let key = format!("session:s{number}");
        let (server, is_struck) = match servers {
            Servers::Standalone(redis) => (redis, true),
            Servers::Sentinel(sentinels) => (&sentinels.redis[0], true),
            Servers::Cluster(cluster) => {
                let owner = cluster.owner(&key).await;
                (owner, owner.address() == cluster.nodes[0].address())
            }
        };
        let connection = match connections.entry(server.address()) {
            Entry::Vacant(place) => place.insert(server.connect().await),
            Entry::Occupied(place) => place.into_mut(),
        };
        // A replica counts only some time after it has come.
        while !sessions.put(number, connection, replicas).await {}
        sessions.add(number, is_struck);
    }
    sessions
}

/// What was seen of failovers.
#[derive(Default)]
struct Seen {
    stale: Vec<Duration>,
    windows: Vec<Duration>,
    replaced: Vec<Duration>,
    recoveries: Vec<Duration>,
    served: usize,
    refused: usize,
    /// Of sessions on servers that were never in trouble.
    refused_elsewhere: usize,
    replicated: usize,
}

/// When things happened.
struct Times {
    struck: Instant,
    /// There was no other primary yet.
    unreplaced: Instant,
    writable: Instant,
}

impl Seen {
    fn add(&mut self, told: &[(bool, Told)], times: &Times, pace: &Pace) {
        let (struck, others): (Vec<_>, Vec<_>) = told.iter().partition(|(is_struck, _)| *is_struck);
        let struck = struck.into_iter().map(|(_, told)| told);
        let (served, refused): (Vec<&Told>, Vec<&Told>) = struck.partition(|told| told.status == 200);
        let first = refused.iter().map(|told| told.begun).min().unwrap();
        let last = refused.iter().map(|told| told.begun).max().unwrap();
        let stale = served.iter().filter(|told| (times.struck..times.unreplaced).contains(&told.begun));
        self.stale.push(stale.map(|told| told.begun - times.struck).max().unwrap_or_default());
        self.windows.push(last - first);
        self.replaced.push(times.writable - times.struck);
        self.recoveries.push(pace.net(times.writable, last.saturating_duration_since(times.writable)));
        self.served += served.len();
        self.refused += refused.len();
        self.refused_elsewhere += others.iter().filter(|(_, told)| told.status == 503).count();
    }

    fn judge(&self, what: &str) {
        let spread = |durations: &[Duration]| Spread::of(durations.iter().copied());
        let (stale, recoveries) = (spread(&self.stale), spread(&self.recoveries));
        let Self { served, refused, refused_elsewhere, replicated, .. } = self;
        report(
            "failovers",
            format!(
                "{what}: {served} served, {refused} refused (+ {refused_elsewhere} on other servers), {replicated} replicated sessions"
            ),
        );
        report("failovers", format!("{what}: first to last 503 {}", spread(&self.windows)));
        report("failovers", format!("{what}: served from the cache after the fault for {stale}"));
        report("failovers", format!("{what}: another primary after {}", spread(&self.replaced)));
        report("failovers", format!("{what}: last 503 after that {recoveries}"));
        assert!(stale.most() <= MAX_STALENESS, "{stale}");
        assert!(recoveries.most() <= MAX_RECOVERY, "{recoveries}");
    }
}

async fn fail_over(mut servers: Servers, trouble: Trouble, seen: &mut Seen) {
    let (instance, sessions) = (mirror(), put_first(&servers).await);
    let pace = Pace::start();
    let programs = [vestibule(&instance, &servers.url()).await, vestibule(&instance, &servers.url()).await];
    let key = servers.key().await;
    let (over, is_over) = watch::channel(false);
    let mut askers = JoinSet::new();
    for program in &programs {
        for number in 0..ASKERS {
            // Half of them never wait for a look-up while the cache may be used.
            let first = if number % 2 == 0 { CACHED } else { usize::MAX };
            askers.spawn(ask_always(program.address, sessions.clone(), first, is_over.clone()));
        }
    }
    let replicas = servers.replicas();
    if replicas > 0 {
        tokio::spawn(add_always(servers.first().connect().await, sessions.clone(), replicas));
    }
    sleep(scaled(Duration::from_millis(500), Duration::from_secs(2))).await; // sessions come and are used
    servers.strike(trouble).await;
    let struck = Instant::now();
    let unreplaced = servers.until_writable(&key, trouble).await;
    let times = Times { struck, unreplaced, writable: Instant::now() };
    sleep(scaled(Duration::from_millis(1_500), 2 * MAX_RECOVERY)).await; // refusals end
    if replicas > 0 {
        servers.end(trouble).await; // nobody listens to the old one
        sleep(scaled(Duration::from_secs(1), Duration::from_secs(3))).await;
    }
    over.send_replace(true);
    let told: Vec<_> = askers.join_all().await.into_iter().flatten().collect();
    assert!(replicas == 0 || sessions.len() > SESSIONS);
    for program in &programs {
        let mut asker = Asker::connect(program.address).await;
        for put in sessions.all() {
            assert_eq!(asker.ask(&put.id).await.user(), Some(user(&put.id).as_str()));
        }
    }
    seen.replicated += sessions.len();
    seen.add(&told, &times, &pace);
}

async fn fail_over_often(what: &str, servers: impl AsyncFn() -> Servers) {
    for trouble in [Trouble::Killed, Trouble::Frozen] {
        let mut seen = Seen::default();
        for _ in 0..rounds(1, 5) {
            fail_over(servers().await, trouble, &mut seen).await;
        }
        seen.judge(&format!("{what}, {trouble:?}"));
    }
}

#[tokio::test]
async fn a_single_server_that_comes_back_logs_nobody_out() {
    fail_over_often("standalone", async || Servers::Standalone(Redis::start().await)).await;
}

#[tokio::test]
async fn sentinels_replace_a_primary_and_nobody_is_logged_out() {
    fail_over_often("sentinel", async || Servers::Sentinel(Sentinels::start().await)).await;
}

#[tokio::test]
async fn a_cluster_replaces_a_master_and_nobody_is_logged_out() {
    fail_over_often("cluster", async || Servers::Cluster(Cluster::start().await)).await;
}
