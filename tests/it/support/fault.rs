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
    /// How much later it arrives what Redis sends over connections on which sessions are looked up: up to this
    /// much when `is_random`, else exactly this.
    pub(crate) delays_look_ups: Duration,
    pub(crate) is_random: bool,
    /// The same for connections on which changes are heard of.
    pub(crate) delays_changes: Duration,
}

impl Rules {
    /// Nothing passes in either direction.
    pub(crate) const SILENT: Rules = Rules {
        holds_requests: true,
        holds_replies: true,
        delays_look_ups: Duration::ZERO,
        is_random: false,
        delays_changes: Duration::ZERO,
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
        |bytes, _| {
            if bytes.windows(8).any(|window| window == b"TRACKING") {
                follows_changes.send_replace(true);
            }
            Duration::ZERO
        },
        |rules| rules.holds_requests,
    );
    let replies = pass(
        from_server,
        to_client,
        rules,
        |_, rules| rules.delay(*follows_changes.borrow()),
        |rules| rules.holds_replies,
    );
    tokio::select! {
        () = requests => {}
        () = replies => {}
    }
}

/// Copies from one half to the other, each piece after its delay and not while pieces are held.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    rules: &watch::Sender<Rules>,
    delay: impl Fn(&[u8], &Rules) -> Duration,
    holds: impl Fn(&Rules) -> bool,
) {
    let (sender, mut pieces) = mpsc::unbounded_channel();
    let read = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay(&buffer[..count], &rules.borrow());
            if sender.send((due, buffer[..count].to_vec())).is_err() {
                return;
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
