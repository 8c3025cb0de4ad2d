//! A wire with faults between the proxy under test and its Redis.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// What the wire does to what passes. Connections stay open, and nothing is lost or overtaken on one of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    /// What is sent to Redis waits.
    pub(crate) holds_requests: bool,
    /// What Redis sends waits.
    pub(crate) holds_replies: bool,
    /// What Redis sends waits on connections on which sessions are looked up.
    pub(crate) holds_look_ups: bool,
    /// How much later it arrives what Redis sends over connections on which sessions are looked up: up to this
    /// much when `is_random`, else exactly this.
    pub(crate) delays_look_ups: Duration,
    pub(crate) is_random: bool,
    /// The same for connections on which changes are heard of.
    pub(crate) delays_changes: Duration,
    /// What Redis tells without being asked (RESP3 pushes) is lost, but for confirmed subscriptions.
    pub(crate) drops_pushes: bool,
    /// `CLIENT TRACKING` is confirmed and not passed on.
    pub(crate) swallows_tracking: bool,
}

impl Rules {
    /// Nothing passes in either direction.
    pub(crate) const SILENT: Rules = Rules {
        holds_requests: true,
        holds_replies: true,
        holds_look_ups: false,
        delays_look_ups: Duration::ZERO,
        is_random: false,
        delays_changes: Duration::ZERO,
        drops_pushes: false,
        swallows_tracking: false,
    };

    fn delay(&self, follows_changes: bool) -> Duration {
        match (follows_changes, self.is_random) {
            (true, _) => self.delays_changes,
            (false, false) => self.delays_look_ups,
            (false, true) => self.delays_look_ups.mul_f64(fastrand::f64()),
        }
    }
}

/// A TCP proxy that knows which connection does what; dropping it cuts all of them.
pub(crate) struct Fault {
    address: SocketAddr,
    to: watch::Sender<SocketAddr>,
    rules: watch::Sender<Rules>,
    cuts: watch::Sender<usize>,
    task: AbortHandle,
}

impl Fault {
    /// Starts on a free port in front of the server at `to`, without a fault.
    pub(crate) async fn before(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to, rules, cuts) = (watch::Sender::new(to), watch::Sender::default(), watch::Sender::new(0));
        let (their_to, their_rules, their_cuts) = (to.subscribe(), rules.clone(), cuts.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let mut cut = their_cuts.subscribe();
                let (to, rules) = (*their_to.borrow(), their_rules.clone());
                connections.spawn(async move {
                    tokio::select! {
                        () = join(client, to, &rules) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { address, to, rules, cuts, task: task.abort_handle() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads to another server from now on; ends every connection.
    pub(crate) fn lead(&self, to: SocketAddr) {
        self.to.send_replace(to);
        self.cut();
    }

    /// Leads new connections to another server from now on; those that are open stay where they are.
    pub(crate) fn lead_new(&self, to: SocketAddr) {
        self.to.send_replace(to);
    }

    /// A Redis URL that leads over this wire.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// What passes from now on is treated like this; a wait ends when the new rules have none.
    pub(crate) fn set(&self, rules: Rules) {
        self.rules.send_replace(rules);
    }

    /// Ends every connection; new ones are welcome.
    pub(crate) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes everything on between `client` and the server at `to` until either side ends.
async fn join(client: TcpStream, to: SocketAddr, rules: &watch::Sender<Rules>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let follows_changes = watch::Sender::new(false);
    let requests = pass(
        from_client,
        to_server,
        rules,
        |bytes, rules| {
            if bytes.windows(8).any(|window| window == b"TRACKING") {
                follows_changes.send_replace(true);
                if rules.swallows_tracking {
                    *bytes = CONFIRMED.to_vec();
                }
            }
            Duration::ZERO
        },
        |rules| rules.holds_requests,
    );
    let replies = pass(
        from_server,
        to_client,
        rules,
        |bytes, rules| {
            if rules.drops_pushes && bytes.starts_with(b">") && !confirms_subscription(bytes) {
                bytes.clear();
            }
            rules.delay(*follows_changes.borrow())
        },
        |rules| rules.holds_replies || rules.holds_look_ups && !*follows_changes.borrow(),
    );
    tokio::select! {
        () = requests => {}
        () = replies => {}
    }
}

/// A command that Redis answers as it does `CLIENT TRACKING`, and that does nothing here.
const CONFIRMED: &[u8] = b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$7\r\nuntrack\r\n";

fn confirms_subscription(push: &[u8]) -> bool {
    push.windows(9).take(16).any(|window| window.eq_ignore_ascii_case(b"subscribe"))
}

/// Copies from one half to the other, each message as `treat` leaves it after the delay that it returns, and not
/// while messages are held.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rules: &watch::Sender<Rules>,
    treat: impl Fn(&mut Vec<u8>, &Rules) -> Duration,
    holds: impl Fn(&Rules) -> bool,
) {
    let (sender, mut pieces) = mpsc::unbounded_channel();
    let read = async {
        let (mut buffer, mut messages) = (vec![0; 64 * 1024], Messages::default());
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let now = Instant::now();
            for mut message in messages.split(&buffer[..count]) {
                let due = now + treat(&mut message, &rules.borrow());
                if sender.send((due, message)).is_err() {
                    return;
                }
            }
        }
    };
    let write = async {
        let mut rules = rules.subscribe();
        while let Some((due, bytes)) = pieces.recv().await {
            sleep_until(due).await;
            if rules.wait_for(|rules| !holds(rules)).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = read => {}
        () = write => {}
    }
}

/// Splits a stream of RESP into whole messages; anything else passes as it comes.
#[derive(Debug, Default)]
struct Messages {
    /// The beginning of a message.
    begun: Vec<u8>,
    /// How much of it has been looked at, and how many values of it are still to come.
    seen: usize,
    values: usize,
    is_other: bool,
}

impl Messages {
    fn split(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.begun.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(end) = self.end() {
            let rest = self.begun.split_off(end);
            whole.push(std::mem::replace(&mut self.begun, rest));
            self.seen = 0;
        }
        whole
    }

    /// Where the first message ends, if it is all there.
    fn end(&mut self) -> Option<usize> {
        if self.seen == 0 {
            self.is_other |= self.begun.first().is_some_and(|kind| !b"+-:,#_(=$!*~>%|".contains(kind));
            self.values = 1;
        }
        if self.is_other {
            return (!self.begun.is_empty()).then_some(self.begun.len());
        }
        while self.values > 0 {
            let rest = &self.begun[self.seen..];
            let line = rest.windows(2).position(|pair| pair == b"\r\n")?;
            let count = std::str::from_utf8(&rest[1..line]).ok().and_then(|text| text.parse::<usize>().ok());
            let (inner, tail) = match (rest[0], count.unwrap_or(0)) {
                (b'$' | b'=' | b'!', count_of_bytes) if count.is_some() => (0, count_of_bytes + 2),
                (b'*' | b'~' | b'>', inner) => (inner, 0),
                (b'%', pairs) => (2 * pairs, 0),
                (b'|', pairs) => (2 * pairs + 1, 0),
                _ => (0, 0),
            };
            let end = line + 2 + tail;
            if rest.len() < end {
                return None;
            }
            self.seen += end;
            self.values = self.values - 1 + inner;
        }
        Some(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::redis::Redis;
    use crate::support::within;

    async fn ask(url: &str) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(url).unwrap();
        within("connection", client.get_multiplexed_async_connection()).await.unwrap()
    }

    async fn ping(connection: &mut redis::aio::MultiplexedConnection) -> Option<Duration> {
        let begun = Instant::now();
        let pong: redis::RedisResult<String> = redis::cmd("PING").query_async(connection).await;
        pong.ok().map(|_| begun.elapsed())
    }

    #[tokio::test]
    async fn what_is_held_arrives_when_it_is_let_go() {
        let redis = Redis::start().await;
        let fault = Fault::before(redis.address()).await;
        let mut connection = ask(&fault.url()).await;
        ping(&mut connection).await.unwrap();
        for rules in [
            Rules::SILENT,
            Rules { holds_requests: true, ..Rules::default() },
            Rules { holds_replies: true, ..Rules::default() },
        ] {
            fault.set(rules);
            let mut held = connection.clone();
            let pong = ping(&mut held);
            tokio::pin!(pong);
            let silence = tokio::time::timeout(Duration::from_millis(50), &mut pong).await;
            assert!(silence.is_err(), "{rules:?}");
            fault.set(Rules::default());
            assert!(pong.await.is_some(), "{rules:?}");
        }
    }

    #[tokio::test]
    async fn delays_are_for_the_connections_they_are_meant_for() {
        let delay = Duration::from_millis(60);
        let redis = Redis::start().await;
        let fault = Fault::before(redis.address()).await;
        let (mut look_ups, mut changes) = (ask(&fault.url()).await, ask(&fault.url()).await);
        let _: redis::RedisResult<()> =
            redis::cmd("CLIENT").arg(&["TRACKING", "OFF"]).query_async(&mut changes).await;
        fault.set(Rules { delays_look_ups: delay, ..Rules::default() });
        assert!(ping(&mut look_ups).await.unwrap() >= delay);
        assert!(ping(&mut changes).await.unwrap() < delay);
        fault.set(Rules { delays_changes: delay, ..Rules::default() });
        assert!(ping(&mut look_ups).await.unwrap() < delay);
        assert!(ping(&mut changes).await.unwrap() >= delay);
    }

    #[test]
    fn messages_are_whole_however_they_come() {
        let all = [
            &b"+OK\r\n"[..],
            b"$-1\r\n",
            b"*2\r\n$3\r\na\r\n\r\n:1\r\n",
            b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
            b"%1\r\n+a\r\n~0\r\n",
            b"_\r\n",
        ];
        let stream = all.concat();
        for size in 1..=stream.len() {
            let mut messages = Messages::default();
            let whole: Vec<_> = stream.chunks(size).flat_map(|piece| messages.split(piece)).collect();
            assert_eq!(whole, all, "in pieces of {size}");
        }
        assert_eq!(Messages::default().split(b"\x16\x03\x01"), [b"\x16\x03\x01"]);
    }

    #[tokio::test]
    async fn pushes_can_be_lost_and_tracking_be_none() {
        let redis = Redis::start().await;
        for (rules, expected) in [
            (Rules::default(), 1),
            (Rules { drops_pushes: true, ..Rules::default() }, 0),
            (Rules { swallows_tracking: true, ..Rules::default() }, 0),
        ] {
            let fault = Fault::before(redis.address()).await;
            fault.set(rules);
            let (sender, mut pushes) = mpsc::unbounded_channel();
            let config = redis::AsyncConnectionConfig::new().set_push_sender(sender);
            let client = redis::Client::open(format!("{}?protocol=resp3", fault.url())).unwrap();
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
            let on = redis::cmd("CLIENT").arg(&["TRACKING", "ON", "BCAST"]).to_owned();
            let confirmed: String = on.query_async(&mut connection).await.unwrap();
            assert_eq!(confirmed, "OK");
            let () = redis.command("SET", ("k", "v")).await;
            ping(&mut connection).await.unwrap();
            let heard = std::iter::from_fn(|| pushes.try_recv().ok());
            let heard = heard.filter(|push| push.kind == redis::PushKind::Invalidate).count();
            assert_eq!(heard, expected, "{rules:?}");
        }
    }

    #[tokio::test]
    async fn new_connections_can_lead_elsewhere() {
        let (one, two) = (Redis::start().await, Redis::start().await);
        let fault = Fault::before(one.address()).await;
        let mut kept = ask(&fault.url()).await;
        fault.lead_new(two.address());
        let () = two.command("SET", ("k", "v")).await;
        for (connection, expected) in [(&mut kept, false), (&mut ask(&fault.url()).await, true)] {
            let is_there: bool = redis::cmd("EXISTS").arg("k").query_async(connection).await.unwrap();
            assert_eq!(is_there, expected);
        }
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_lets_new_ones_in() {
        let redis = Redis::start().await;
        let fault = Fault::before(redis.address()).await;
        let mut connection = ask(&fault.url()).await;
        ping(&mut connection).await.unwrap();
        fault.cut();
        assert_eq!(ping(&mut connection).await, None);
        assert!(ping(&mut ask(&fault.url()).await).await.is_some());
    }
}
