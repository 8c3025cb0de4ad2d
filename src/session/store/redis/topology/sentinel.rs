//! Follows the primary that a majority of the sentinels names.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, Value, cmd};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::config::Host;

use super::super::super::StoreError;
use super::super::access::Access;
use super::super::link::Connector;
use super::super::reply;
use super::State;
use super::failover_candidates::{Successors, Unknown};
use super::followers::Followers;
use super::poller::{Answer, PollSpec, TopologyPoller};
use super::snapshot::Slots;

const INTERVAL: Duration = Duration::from_millis(150);
/// How long a reply of a sentinel is valid, counted from the request.
const VALID: Duration = Duration::from_millis(500);
/// Timeout for a newly elected server to confirm that it is a primary, and for the queries about failover
/// candidates.
const VERIFY: Duration = Duration::from_millis(500);

/// The sentinels that monitor one master.
#[derive(Clone)]
pub(in super::super) struct Sentinels {
    pub(super) access: Arc<Access>,
    pub(super) hosts: Vec<Host>,
    /// The name of the master in the configuration of the sentinels.
    pub(super) master: String,
}

impl Sentinels {
    fn connectors(&self) -> impl Iterator<Item = Connector> {
        let connector = |host: &Host| Connector { access: Arc::clone(&self.access), host: host.clone() };
        self.hosts.iter().map(connector)
    }

    fn question(&self, name: &str) -> Cmd {
        let mut question = cmd("SENTINEL");
        question.arg(name).arg(&self.master);
        question
    }

    fn quorum(&self) -> usize {
        self.hosts.len() / 2 + 1
    }
}

/// The servers that a sentinel may promote in a failover. A majority of the sentinels must reply, because a
/// failover needs a majority, and so at least one sentinel of every such majority has been asked. An
/// unreachable replica is included, since it may return.
pub(super) async fn successors(sentinels: &Sentinels) -> Result<Successors, Unknown> {
    let (about_master, about_replicas) = (&sentinels.question("master"), &sentinels.question("replicas"));
    let asked = sentinels
        .connectors()
        .map(async |sentinel| timeout(VERIFY, ask_both(&sentinel, about_master, about_replicas)).await);
    let answers = join_all(asked).await;
    let answers: Vec<_> = answers.into_iter().flatten().flatten().collect();
    if answers.len() < sentinels.quorum() {
        return Err(Unknown::Sentinels);
    }
    let (mut certain, mut never) = (BTreeSet::new(), BTreeSet::new());
    for (master, replicas) in &answers {
        let listed = listed(replicas).ok_or(Unknown::Sentinels)?;
        let known = number(master, b"num-slaves").ok_or(Unknown::Sentinels)?;
        // A sentinel does not list replicas that are not announced, but may promote them.
        if known != listed.len() {
            return Err(Unknown::Unannounced);
        }
        for (host, may_be_chosen) in listed {
            if may_be_chosen { &mut certain } else { &mut never }.insert(host);
        }
    }
    never.retain(|host| !certain.contains(host));
    Ok(Successors { certain, never })
}

/// Follows the master of these sentinels.
pub(super) async fn watch(state: Arc<State>, sentinels: Sentinels) {
    let (answers, mut heard) = mpsc::channel(sentinels.hosts.len());
    let question = sentinels.question("get-master-addr-by-name");
    let doubts = state.doubts.subscribe();
    let questions = PollSpec { question, interval: INTERVAL, reopen: None, doubts, answers };
    let start = |connector| TopologyPoller::start(connector, questions.clone());
    let _observers: Vec<_> = sentinels.connectors().map(start).collect();
    let quorum = sentinels.quorum();
    let mut votes = HashMap::new();
    let (roles, mut told) = mpsc::channel(sentinels.hosts.len());
    let mut followers = Followers::new(&state, roles);
    loop {
        tokio::select! {
            Some(role) = told.recv() => followers.note(role),
            Some(Answer { from, asked, said }) = heard.recv() => {
                if let Some(named) = said.ok().and_then(|said| named(&said)) {
                    votes.insert(from, Vote { named, asked });
                }
            }
            else => return,
        }
        if let Some((elected, until)) = elected(votes.values(), quorum, Instant::now()) {
            adopt(&state, &elected, until, &mut followers).await;
        }
    }
}

/// The reply of a sentinel, and when it was requested.
struct Vote {
    named: Host,
    asked: Instant,
}

/// Confirms `elected` as the primary until `until`. A server that is not in the layout yet must first confirm
/// that it is a primary.
async fn adopt(state: &State, elected: &Host, until: Instant, followers: &mut Followers) {
    let is_known = state.layout.load().index_of(elected).is_some();
    if !is_known {
        if timeout(VERIFY, is_master(state, elected)).await != Ok(true) {
            return;
        }
        tracing::warn!(primary = %elected, "the session store has a new primary");
        state.publish(std::slice::from_ref(elected), Slots::One);
    }
    followers.elected(elected);
    state.confirm(followers.limit(until));
}

async fn is_master(state: &State, host: &Host) -> bool {
    let role = ask(&state.connector(host), &cmd("ROLE")).await;
    role.is_ok_and(|role| reply::is_primary(&role))
}

/// The replies to two commands, over a separate connection.
async fn ask_both(server: &Connector, one: &Cmd, other: &Cmd) -> Result<(Value, Value), StoreError> {
    let mut connection = server.open(|_| Ok::<_, redis::aio::SendError>(())).await?;
    let one = reply::checked(connection.send_packed_command(one).await)?;
    let other = reply::checked(connection.send_packed_command(other).await)?;
    Ok((one, other))
}

/// The reply to a command, over a separate connection.
async fn ask(server: &Connector, question: &Cmd) -> Result<Value, StoreError> {
    let mut connection = server.open(|_| Ok::<_, redis::aio::SendError>(())).await?;
    reply::checked(connection.send_packed_command(question).await)
}

/// The host that at least `quorum` recent votes name, and until when the result is valid.
fn elected<'a>(
    votes: impl Iterator<Item = &'a Vote>,
    quorum: usize,
    now: Instant,
) -> Option<(Host, Instant)> {
    let mut by_host: HashMap<&Host, Vec<Instant>> = HashMap::new();
    for vote in votes.filter(|vote| vote.asked + VALID > now) {
        by_host.entry(&vote.named).or_default().push(vote.asked);
    }
    by_host.into_iter().find_map(|(host, mut asked)| {
        asked.sort_unstable_by(|one, other| other.cmp(one));
        // The result is valid as long as the oldest vote that the quorum needs.
        asked.get(quorum - 1).map(|oldest| (host.clone(), *oldest + VALID))
    })
}

/// Decodes `[address, port]`; `None` if the sentinel does not know the master.
fn named(reply: &Value) -> Option<Host> {
    let [Value::BulkString(name), Value::BulkString(port)] = reply.as_sequence()? else { return None };
    let port = str::from_utf8(port).ok()?.parse().ok()?;
    Some(Host { name: str::from_utf8(name).ok()?.to_owned(), port })
}

/// The replicas that a sentinel lists, and whether it may promote them: priority 0 excludes a replica.
fn listed(replicas: &Value) -> Option<Vec<(Host, bool)>> {
    let Value::Array(replicas) = replicas else { return None };
    let about = |replica| {
        let name = str::from_utf8(value(replica, b"ip")?).ok()?.to_owned();
        let port = u16::try_from(number(replica, b"port")?).ok()?;
        Some((Host { name, port }, number(replica, b"slave-priority")? != 0))
    };
    replicas.iter().map(about).collect()
}

fn number(about: &Value, wanted: &[u8]) -> Option<usize> {
    str::from_utf8(value(about, wanted)?).ok()?.parse().ok()
}

/// The value under `wanted` in a map, in RESP2 or RESP3.
fn value<'a>(about: &'a Value, wanted: &[u8]) -> Option<&'a [u8]> {
    about.as_map_iter()?.find_map(|(name, value)| match (name, value) {
        (Value::BulkString(name), Value::BulkString(value)) if name == wanted => Some(value.as_slice()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: u16) -> Host {
        Host { name: "h".to_owned(), port }
    }

    #[tokio::test(start_paused = true)]
    async fn a_majority_must_be_of_one_mind_and_recent() {
        let begin = Instant::now();
        let now = begin + Duration::from_millis(1000);
        let vote = |port, age| Vote { named: host(port), asked: now - Duration::from_millis(age) };
        let until = |age| now + VALID - Duration::from_millis(age);
        for (votes, expected) in [
            (vec![vote(1, 10), vote(1, 300), vote(1, 400)], Some((host(1), until(300)))),
            (vec![vote(1, 10), vote(1, 499), vote(2, 1)], Some((host(1), until(499)))),
            (vec![vote(1, 10), vote(1, 500), vote(1, 600)], None),
            (vec![vote(1, 10), vote(2, 10)], None),
            (vec![vote(1, 10)], None),
            (vec![], None),
        ] {
            assert_eq!(elected(votes.iter(), 2, now), expected);
        }
    }

    #[test]
    fn a_sentinel_names_a_host_or_nobody() {
        let reply = |text: &str| redis::parse_redis_value(text.as_bytes()).unwrap();
        assert_eq!(named(&reply("*2\r\n$1\r\nh\r\n$4\r\n6379\r\n")), Some(host(6379)));
        for nobody in ["*-1\r\n", "_\r\n", "*2\r\n$1\r\nh\r\n$1\r\nx\r\n", "*1\r\n$1\r\nh\r\n", "+OK\r\n"] {
            assert_eq!(named(&reply(nobody)), None, "{nobody:?}");
        }
    }

    #[test]
    fn a_sentinel_tells_of_replicas_in_either_protocol() {
        let replica = |port: &str, flags: &str, priority: &str| {
            let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            Value::Map(vec![
                (text("ip"), text("h")),
                (text("port"), text(port)),
                (text("flags"), text(flags)),
                (text("slave-priority"), text(priority)),
            ])
        };
        let in_resp2 = |replica| match replica {
            Value::Map(pairs) => Value::Array(pairs.into_iter().flat_map(<[Value; 2]>::from).collect()),
            other => other,
        };
        for (of, expected) in [
            (vec![], Some(vec![])),
            (
                vec![replica("1", "slave", "100"), in_resp2(replica("2", "s_down,slave,disconnected", "1"))],
                Some(vec![(host(1), true), (host(2), true)]),
            ),
            (vec![replica("1", "slave", "0")], Some(vec![(host(1), false)])),
            (vec![Value::Map(Vec::new())], None),
        ] {
            assert_eq!(listed(&Value::Array(of)), expected);
        }
        assert_eq!(listed(&Value::Nil), None);
    }
}
