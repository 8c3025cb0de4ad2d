//! What was answered "revoked" stays so, whichever server becomes the primary; and a vestibule on the wrong side
//! of a split refuses rather than goes on with what it knew.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{Spread, report, rounds};
use crate::support::asker::{Asker, NOBODY, Told, mirror};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::fault::{Fault, Rules};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::{Sentinel, Sentinels, until};
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::{RefusedPort, within};

const TOKEN: &str = "operator-token-0123456789";
/// The default of `max_staleness`.
const MAX_STALENESS: Duration = Duration::from_secs(1);
/// Sessions that are revoked before each failover.
const REVOKED: usize = 3;

/// Which replicas do not get the revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    None,
    /// The one that the sentinels will rather choose.
    Preferred,
    Both,
}

/// The links that are cut, and whether no vestibule that knows of the revocation is there when the new primary is
/// first asked.
const ROUNDS: [(Cut, bool); 8] = [
    (Cut::None, true),
    (Cut::Preferred, true),
    (Cut::Both, false),
    (Cut::None, false),
    (Cut::None, true),
    (Cut::Both, true),
    (Cut::None, false),
    (Cut::Preferred, false),
];

fn user(id: &str) -> String {
    format!("user-of-{id}")
}

fn tombstone(id: &str) -> String {
    format!("vestibule:dead:{{session:{id}}}")
}

async fn vestibule(instance: &Service, url: &str) -> Program {
    let tables = format!("[access_log]\noutput = \"off\"\n[session.store]\nurl = \"{url}\"");
    let config = Config::to(&[instance.address()]).workers(2).with(&tables);
    Program::start(config.token(TOKEN)).await
}

/// Writes these sessions and waits until both replicas have them.
async fn put(primary: &Redis, ids: &[String]) {
    let mut connection = primary.connect().await;
    for id in ids {
        let mut write = redis::pipe();
        write.hset(format!("session:{id}"), "user_id", user(id));
        write.pexpire(format!("session:{id}"), 3_600_000);
        let () = write.query_async(&mut connection).await.unwrap();
    }
    let mut wait = redis::cmd("WAIT");
    wait.arg(2).arg(400);
    within("the replicas", async {
        // One that has just come back counts only after a while.
        while wait.query_async::<usize>(&mut connection).await.unwrap() < 2 {}
    })
    .await;
}

/// Revokes a session over the admin API; the status of the answer.
async fn revoke(admin: SocketAddr, id: &str) -> u16 {
    let headers = [("Authorization", &*format!("Bearer {TOKEN}")), ("Content-Type", "application/json")];
    let body = json!({ "id": id }).to_string();
    let mut client = Client::connect(admin).await;
    client.request("POST", "/api/v1/sessions/revoke", &headers, body.as_bytes()).await.status
}

/// Asks until the answer is not a refusal: who the session belongs to.
async fn owner(asker: &mut Asker, id: &str) -> String {
    within("an answer", async {
        loop {
            if let Some(user) = asker.ask(id).await.user() {
                return user.to_owned();
            }
            sleep(Duration::from_millis(5)).await; // refusals are quick; leave the machine to the others
        }
    })
    .await
}

/// One who asks with a session until told to stop.
struct Watch {
    over: watch::Sender<bool>,
    task: JoinHandle<Vec<Told>>,
}

impl Watch {
    fn start(address: SocketAddr, ids: Vec<String>) -> Self {
        let (over, is_over) = watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut asker, mut all) = (Asker::connect(address).await, Vec::new());
            for id in ids.iter().cycle() {
                if *is_over.borrow() {
                    break;
                }
                all.push(asker.ask(id).await);
                sleep(Duration::from_millis(1)).await; // the other processes need the machine as well
            }
            all
        });
        Self { over, task }
    }

    async fn end(self) -> Vec<Told> {
        self.over.send_replace(true);
        self.task.await.unwrap()
    }
}

/// A revoked session.
struct Dead {
    id: String,
    is_durable: bool,
}

/// What was seen of all failovers.
#[derive(Default)]
struct Seen {
    dead: Vec<Dead>,
    /// Accepted revocations that the new primary did not know at first, and that a new vestibule did not honour.
    forgotten: usize,
    undone: usize,
    /// From the new primary's election, or the return of those who know, until it knew.
    asserted: Vec<Duration>,
}

struct House {
    sentinels: Sentinels,
    instance: Service,
    /// Those that know of every revocation.
    programs: [Program; 2],
    seen: Seen,
}

impl House {
    async fn start() -> Self {
        let (sentinels, instance) = (Sentinels::start().await, mirror());
        sentinels.hurry(Duration::from_secs(2)).await;
        let url = sentinels.url();
        let programs = [vestibule(&instance, &url).await, vestibule(&instance, &url).await];
        Self { sentinels, instance, programs, seen: Seen::default() }
    }

    fn signal(&self, name: &str) {
        self.programs.iter().for_each(|program| program.process.signal(name));
    }

    /// Stops the replication of these replicas.
    async fn cut(&self, primary: usize, replicas: &[usize], dead_end: &RefusedPort) {
        let nowhere = dead_end.address();
        for replica in replicas {
            let replica = &self.sentinels.redis[*replica];
            let () = replica.command("REPLICAOF", (nowhere.ip().to_string(), nowhere.port())).await;
        }
        until("the primary to notice", async || {
            let info: String = self.sentinels.redis[primary].command("INFO", "replication").await;
            info.contains(&format!("connected_slaves:{}", 2 - replicas.len()))
        })
        .await;
    }

    /// Revokes sessions, and replaces the primary that heard of it.
    async fn round(&mut self, number: usize) {
        let (cut, is_alone) = ROUNDS[number % ROUNDS.len()];
        let primary = self.sentinels.named_index(0).await;
        let others: Vec<usize> = (0..3).filter(|index| *index != primary).collect();
        let preferred = others[number % 2];
        self.sentinels.complete(None, preferred).await;
        let ids: Vec<String> = (0..REVOKED).map(|session| format!("s{number}-{session}")).collect();
        let control = format!("control{number}");
        put(&self.sentinels.redis[primary], &[&ids[..], std::slice::from_ref(&control)].concat()).await;
        for program in &self.programs {
            let mut asker = Asker::connect(program.address).await;
            for id in &ids {
                assert_eq!(owner(&mut asker, id).await, user(id));
            }
        }

        let dead_end = RefusedPort::new();
        match cut {
            Cut::None => (),
            Cut::Preferred => self.cut(primary, &[preferred], &dead_end).await,
            Cut::Both => self.cut(primary, &others, &dead_end).await,
        }
        for (session, id) in ids.iter().enumerate() {
            let status = revoke(self.programs[session % 2].admin, id).await;
            assert!(matches!((status, cut), (200, Cut::None) | (202, _)), "{status} with {cut:?}");
            self.seen.dead.push(Dead { id: id.clone(), is_durable: status == 200 });
        }
        let watches = self.programs.each_ref().map(|program| Watch::start(program.address, ids.clone()));
        if is_alone {
            self.signal("STOP");
        }
        let before = self.sentinels.named(0).await;
        self.sentinels.redis[primary].stop();
        self.sentinels.until_replaced(before).await;
        self.judge(&ids, &control, is_alone).await;
        let [one, two] = watches;
        for told in [one.end().await, two.end().await].concat() {
            assert!(told.user().is_none_or(|user| user == NOBODY), "{cut:?}: {told:?}");
        }
        self.sentinels.complete(Some(primary), others[0]).await;
    }

    /// Asks the new primary, and a vestibule that knows only what it says.
    async fn judge(&mut self, ids: &[String], control: &str, is_alone: bool) {
        let mut named = Instant::now();
        let new = &self.sentinels.redis[self.sentinels.named_index(0).await];
        let is_known = async |id: &str| new.command::<bool>("EXISTS", tombstone(id)).await;
        if is_alone {
            for dead in self.seen.dead.iter().filter(|dead| ids.contains(&dead.id)) {
                let is_known = is_known(&dead.id).await;
                assert!(is_known || !dead.is_durable, "{} is forgotten", dead.id);
                self.seen.forgotten += usize::from(!is_known);
            }
        }
        let stranger = vestibule(&self.instance, &self.sentinels.url()).await;
        let mut asker = Asker::connect(stranger.address).await;
        assert_eq!(owner(&mut asker, control).await, user(control));
        for dead in &self.seen.dead {
            let owner = owner(&mut asker, &dead.id).await;
            let is_undone = owner != NOBODY;
            assert!(!is_undone || !dead.is_durable, "{} belongs to {owner}", dead.id);
            self.seen.undone += usize::from(is_undone);
        }
        if is_alone {
            self.signal("CONT");
            named = Instant::now();
        }
        for id in ids {
            until("the revocation to be known", async || is_known(id).await).await;
        }
        let asserted = Instant::now();
        self.seen.asserted.push(asserted - named);
        for dead in &self.seen.dead {
            let mut begun = Instant::now();
            while owner(&mut asker, &dead.id).await != NOBODY {
                assert!(begun.saturating_duration_since(asserted) < MAX_STALENESS, "{} is honoured", dead.id);
                begun = Instant::now();
            }
        }
    }
}

#[tokio::test]
async fn no_failover_undoes_what_was_answered_revoked() {
    let mut house = House::start().await;
    let rounds = rounds(3, 50);
    for number in 0..rounds {
        house.round(number).await;
    }
    let Seen { dead, forgotten, undone, asserted } = house.seen;
    let durable = dead.iter().filter(|dead| dead.is_durable).count();
    let accepted = dead.len() - durable;
    report(
        "durable revocations",
        format!("{rounds} failovers: {durable} revoked, none of them undone; {accepted} accepted"),
    );
    report(
        "durable revocations",
        format!(
            "accepted: {forgotten} unknown to the new primary, {undone} times honoured before those who knew came back"
        ),
    );
    report("durable revocations", format!("known again after {}", Spread::of(asserted)));
    assert!(durable > 0 && forgotten > 0);
}

/// Two thirds of the sentinels cannot be reached by one vestibule, which still reaches the old primary: a primary
/// that does not learn that it is none any more, and a sentinel that does not either.
async fn split() -> [Duration; 2] {
    let (sentinels, instance) = (Sentinels::start().await, mirror());
    let old = &sentinels.redis[0];
    let ids = vec!["s".to_owned()];
    put(old, &ids).await;
    let wires = [
        Fault::before(sentinels.address(0)).await,
        Fault::before(sentinels.address(1)).await,
        Fault::before(sentinels.address(2)).await,
    ];
    let [one, two, three] = wires.each_ref().map(Fault::address);
    let url = format!("redis+sentinel://{one},{two},{three}/main/0");
    let (cut_off, other) = (vestibule(&instance, &url).await, vestibule(&instance, &sentinels.url()).await);
    for program in [&cut_off, &other] {
        assert_eq!(owner(&mut Asker::connect(program.address).await, "s").await, user("s"));
    }
    let rules =
        ["SETUSER", "default", "-replicaof", "-slaveof", "resetchannels", "&session:*", "&vestibule:*"];
    let () = old.command("ACL", rules.as_slice()).await;
    let watch = Watch::start(cut_off.address, ids);
    sentinels.begin_failover().await;
    // The sentinel that has chosen is the first to name it; the one that is cut off needs two.
    until("a new primary", async || sentinels.named(1).await != old.address().port()).await;
    wires.iter().for_each(|wire| wire.set(Rules::SILENT));
    let split = Instant::now();
    let new = &sentinels.redis[sentinels.named_index(1).await];
    new.put_session("new", &[("user_id", &user("new"))]).await;
    let mut asker = Asker::connect(other.address).await;
    within("the other to follow", async { while owner(&mut asker, "new").await == NOBODY {} }).await;
    let revoked = within("the revocation", async {
        while !matches!(revoke(other.admin, "s").await, 200 | 202) {
            sleep(Duration::from_millis(5)).await; // refusals are quick; leave the machine to the others
        }
        Instant::now()
    })
    .await;
    until("the replicas to leave", async || {
        old.command::<String>("INFO", "replication").await.contains("connected_slaves:0")
    })
    .await;
    let minority = Sentinel::start(old.address()).await;
    wires[0].lead(minority.address);
    wires[0].set(Rules::default());
    sleep(2 * MAX_STALENESS).await; // what comes now is too late
    let minds: String = old.command("INFO", "replication").await;
    assert!(minds.contains("role:master"), "{minds}");
    let healed = Instant::now();
    wires[0].lead(sentinels.address(0));
    wires.iter().for_each(|wire| wire.set(Rules::default()));
    assert_eq!(owner(&mut Asker::connect(cut_off.address).await, "s").await, NOBODY);
    let told = watch.end().await;
    let honoured = told.iter().filter(|told| told.user() == Some(&user("s"))).map(|told| told.begun);
    let last = honoured.max().unwrap();
    let after =
        told.iter().filter(|told| (last.max(split)..healed).contains(&told.begun) && told.begun > last);
    assert!(after.clone().count() > 0);
    after.for_each(|told| assert_eq!(told.status, 503, "{told:?}"));
    [last.saturating_duration_since(split), last.saturating_duration_since(revoked)]
}

#[tokio::test]
async fn on_the_wrong_side_of_a_split_nothing_is_honoured_for_long() {
    let (mut after_split, mut after_revocation) = (Vec::new(), Vec::new());
    for _ in 0..rounds(1, 10) {
        let [split, revocation] = split().await;
        after_split.push(split);
        after_revocation.push(revocation);
    }
    let (after_split, after_revocation) = (Spread::of(after_split), Spread::of(after_revocation));
    report("split", format!("honoured after the split for {after_split}"));
    report("split", format!("honoured after the revocation for {after_revocation}"));
    assert!(after_split.most() <= MAX_STALENESS, "{after_split}");
    assert!(after_revocation.most() <= MAX_STALENESS, "{after_revocation}");
}
