//! The consistency promises, kept against an outsider: each test does to Redis, or to the way to it, what other
//! programs and operators may do, and judges by nothing but what requests were told and what Redis acknowledged.
//! One module per kind of trouble; short and long forms as in [`proofs`](crate::proofs).

mod clock;
mod demotion;
mod edges;
mod one_address;
mod pushes;
mod renewals;
mod replicas;
mod stale;
mod unannounced;
mod users;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::asker::{Asker, Told};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// The default of `max_staleness`.
const MAX_STALENESS: Duration = Duration::from_secs(1);
/// What a busy machine may add to it between what happens and what the test sees of it.
const SLACK: Duration = Duration::from_millis(300);
/// How long what is over may still be honoured.
const BOUND: Duration = Duration::from_millis(1_300);
const HOUR: Duration = Duration::from_secs(3_600);
const TOKEN: &str = "operator-token-0123456789";

fn old_user(id: &str) -> String {
    format!("old-{id}")
}

fn new_user(id: &str) -> String {
    format!("new-{id}")
}

/// Writes a session of this user that has this long to live.
async fn put(redis: &mut MultiplexedConnection, id: &str, user: &str, ttl: Duration) {
    let (key, mut write) = (format!("session:{id}"), redis::pipe());
    write.hset(&key, "user_id", user).pexpire(&key, ttl.as_millis() as i64);
    let () = write.query_async(redis).await.unwrap();
}

/// A configuration with an operator's token, and these lines under `[session]` and `[session.store]`; tables may
/// follow the latter.
fn config(instance: &Service, url: &str, session: &str, store: &str) -> Config {
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session]\n{session}\n[session.store]\nurl = \"{url}\"\n{store}"
    );
    Config::to(&[instance.address()]).workers(2).upstream("session_control = true").token(TOKEN).with(&tables)
}

/// Starts with [`config`] and waits until the cache is in use.
async fn vestibule(instance: &Service, url: &str, session: &str, store: &str) -> Program {
    let program = Program::start(config(instance, url, session, store)).await;
    program.wait_for_fresh_cache().await;
    program
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

/// What the admin API said to a revocation.
#[derive(Debug)]
struct Revoked {
    status: u16,
    sessions: u64,
    reason: String,
}

/// Revokes `{"id": …}` or `{"user": …}`.
async fn revoke(admin: SocketAddr, what: &str, name: &str) -> Revoked {
    let headers = [("Authorization", &*format!("Bearer {TOKEN}")), ("Content-Type", "application/json")];
    let body = json!({ what: name }).to_string();
    let mut client = Client::connect(admin).await;
    let response = client.request("POST", "/api/v1/sessions/revoke", &headers, body.as_bytes()).await;
    let answer: Value = response.json();
    Revoked {
        status: response.status,
        sessions: answer["sessions"].as_u64().unwrap_or_default(),
        reason: answer["reason"].as_str().unwrap_or_default().to_owned(),
    }
}

/// One who asks with a few sessions in turn until told to stop.
struct Watch {
    over: watch::Sender<bool>,
    task: JoinHandle<Account>,
}

impl Watch {
    fn start(address: SocketAddr, ids: &[&str]) -> Self {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let (over, is_over) = watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut asker, mut all) = (Asker::connect(address).await, Vec::new());
            for id in ids.iter().cycle() {
                if *is_over.borrow() {
                    break;
                }
                all.push((id.clone(), asker.ask(id).await));
                sleep(Duration::from_millis(2)).await; // the other processes need the machine as well
            }
            Account(all)
        });
        Self { over, task }
    }

    async fn end(self) -> Account {
        self.over.send_replace(true);
        self.task.await.unwrap()
    }
}

/// What requests were told, by the session they came with.
struct Account(Vec<(String, Told)>);

impl Account {
    fn of<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Told> {
        self.0.iter().filter(move |(own, _)| own == id).map(|(_, told)| told)
    }

    /// How long after `from` a request was begun that was told this user.
    fn honoured(&self, id: &str, user: &str, from: Instant) -> Duration {
        let told = self.of(id).filter(|told| told.user() == Some(user));
        told.map(|told| told.begun.saturating_duration_since(from)).max().unwrap_or_default()
    }
}
