//! The primary that a majority of sentinels name.

use std::collections::HashMap;
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
use super::layout::Slots;
use super::observer::{Answer, Observer, Questions};

const INTERVAL: Duration = Duration::from_millis(150);
/// How long what a sentinel said counts.
const VALID: Duration = Duration::from_millis(500);
/// How long a new primary has to say that it is one.
const VERIFY: Duration = Duration::from_millis(500);

/// The sentinels of one master.
#[derive(Clone)]
pub(super) struct Sentinels {
    pub(super) access: Arc<Access>,
    pub(super) hosts: Vec<Host>,
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

    /// How many servers one of them might choose as the next primary; `None` when no majority says.
    pub(super) async fn heirs(&self) -> Option<usize> {
        let question = &self.question("replicas");
        let asked = self.connectors().map(async |sentinel| timeout(VERIFY, ask(&sentinel, question)).await);
        let answers = join_all(asked).await.into_iter().flatten().flatten();
        let counts: Vec<_> = answers.filter_map(|replicas| heirs(&replicas)).collect();
        counts.iter().max().copied().filter(|_| counts.len() >= self.quorum())
    }
}

/// Follows the master of these sentinels.
pub(super) async fn watch(state: Arc<State>, sentinels: Sentinels) {
    let (answers, mut heard) = mpsc::channel(sentinels.hosts.len());
    let question = sentinels.question("get-master-addr-by-name");
    let doubts = state.doubts.subscribe();
    let questions = Questions { question, interval: INTERVAL, doubts, answers };
    let start = |connector| Observer::start(connector, questions.clone());
    let _observers: Vec<_> = sentinels.connectors().map(start).collect();
    let quorum = sentinels.quorum();
    let mut votes = HashMap::new();
    while let Some(Answer { from, asked, said }) = heard.recv().await {
        if let Some(named) = said.ok().and_then(|said| named(&said)) {
            votes.insert(from, Vote { named, asked });
        }
        if let Some((elected, until)) = elected(votes.values(), quorum, Instant::now()) {
            adopt(&state, &elected, until).await;
        }
    }
}

/// What a sentinel said when.
struct Vote {
    named: Host,
    asked: Instant,
}

/// Confirms `elected` until then; if it is another primary than the one we know, only when it is one.
async fn adopt(state: &State, elected: &Host, until: Instant) {
    let is_known = state.layout.load().index_of(elected).is_some();
    if !is_known {
        if timeout(VERIFY, is_master(state, elected)).await != Ok(true) {
            return;
        }
        tracing::warn!(primary = %elected, "the session store has a new primary");
        state.publish(std::slice::from_ref(elected), Slots::One);
    }
    state.confirm(until);
}

async fn is_master(state: &State, host: &Host) -> bool {
    let role = ask(&state.connector(host), &cmd("ROLE")).await;
    role.is_ok_and(|role| reply::is_primary(&role))
}

/// What a server says over a connection of its own.
async fn ask(server: &Connector, question: &Cmd) -> Result<Value, StoreError> {
    let mut connection = server.open(|_| Ok::<_, redis::aio::SendError>(())).await?;
    reply::checked(connection.send_packed_command(question).await)
}

/// The host that at least `quorum` sentinels named not too long ago, and until when that counts.
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
        // The majority lasts as long as the oldest vote that it needs.
        asked.get(quorum - 1).map(|oldest| (host.clone(), *oldest + VALID))
    })
}

/// `[address, port]`, or nil when the sentinel knows no such master.
fn named(reply: &Value) -> Option<Host> {
    let [Value::BulkString(name), Value::BulkString(port)] = reply.as_sequence()? else { return None };
    let port = str::from_utf8(port).ok()?.parse().ok()?;
    Some(Host { name: str::from_utf8(name).ok()?.to_owned(), port })
}

/// Those of the replicas that a sentinel would choose from: it hears of them and may take them.
fn heirs(replicas: &Value) -> Option<usize> {
    let Value::Array(replicas) = replicas else { return None };
    let are_heirs: Vec<_> = replicas.iter().map(is_heir).collect::<Option<_>>()?;
    Some(are_heirs.into_iter().filter(|is_heir| *is_heir).count())
}

fn is_heir(replica: &Value) -> Option<bool> {
    let about: Vec<_> = replica.as_map_iter()?.collect();
    let value = |wanted: &[u8]| {
        about.iter().find_map(|(name, value)| match (name, value) {
            (Value::BulkString(name), Value::BulkString(value)) if name == wanted => Some(value.as_slice()),
            _ => None,
        })
    };
    let is_down = |flag: &[u8]| matches!(flag, b"s_down" | b"o_down" | b"disconnected");
    let is_heard = !value(b"flags")?.split(|byte| *byte == b',').any(is_down);
    Some(is_heard && value(b"slave-priority")? != b"0")
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
    fn an_heir_is_heard_of_and_may_be_chosen() {
        let replica = |flags: &str, priority: &str| {
            let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            Value::Map(vec![
                (text("flags"), text(flags)),
                (text("master-link-status"), text("err")),
                (text("slave-priority"), text(priority)),
            ])
        };
        let in_resp2 = |replica| match replica {
            Value::Map(pairs) => Value::Array(pairs.into_iter().flat_map(<[Value; 2]>::from).collect()),
            other => other,
        };
        for (of, expected) in [
            (vec![], Some(0)),
            (vec![replica("slave", "100"), replica("slave,reconf_done", "1")], Some(2)),
            (vec![replica("s_down,slave,disconnected", "100"), replica("slave", "100")], Some(1)),
            (vec![replica("slave,disconnected", "100"), replica("slave", "0")], Some(0)),
            (vec![in_resp2(replica("slave", "100")), in_resp2(replica("s_down,slave", "100"))], Some(1)),
            (vec![Value::Map(Vec::new())], None),
        ] {
            assert_eq!(heirs(&Value::Array(of)), expected);
        }
        assert_eq!(heirs(&Value::Nil), None);
    }
}
