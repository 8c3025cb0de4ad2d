//! Clients who notice whatever goes wrong: paced requests on kept connections, streams and WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_tungstenite::tungstenite::Message;

use crate::support::DEADLINE;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::service::{Service, begin, chunk, send};
use crate::support::ws;

/// Connections that requests are spread over.
const CLIENTS: usize = 25;
const TICK: Duration = Duration::from_millis(200);

/// Instances that answer requests and, below `/stream`, tick until they are told to stop.
pub(crate) struct Application {
    pub(crate) services: Vec<Service>,
    echo: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Application {
    pub(crate) async fn start(instances: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let services = (0..instances).map(|_| instance(stopped.clone())).collect();
        Self { services, echo: ws::echo_server().await, stop }
    }

    /// A configuration with these instances for requests and streams, and one for WebSockets below `/ws`.
    pub(crate) fn config(&self, instances: impl IntoIterator<Item = usize>) -> Config {
        let addresses: Vec<_> = instances.into_iter().map(|index| self.services[index].address()).collect();
        let sockets = format!(
            "[[upstream]]\nname = \"sockets\"\n[[upstream.instance]]\naddress = \"{}\"\n\
             [[route]]\npath = \"/ws\"\nupstream = \"sockets\"",
            self.echo
        );
        Config::to(&addresses).workers(2).with(&sockets)
    }
}

fn instance(stopped: watch::Receiver<bool>) -> Service {
    Service::start(async move |request, wire| {
        if !request.start_line.starts_with("GET /stream") {
            return send(wire, 200, &[], "told").await;
        }
        begin(wire, "text/event-stream").await?;
        let mut tick = 0;
        while !*stopped.borrow() {
            chunk(wire, format!("{tick}\n").as_bytes()).await?;
            tick += 1;
            wire.until(sleep(TICK)).await?;
        }
        chunk(wire, b"").await
    })
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicUsize,
    failed: AtomicUsize,
    cut: AtomicUsize,
    ticks: AtomicUsize,
    messages: AtomicUsize,
}

/// All that was noticed.
#[derive(Debug)]
pub(crate) struct Noticed {
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    /// Streams and WebSockets.
    pub(crate) cut: usize,
    pub(crate) ticks: usize,
    pub(crate) messages: usize,
}

impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { requests, failed, cut, ticks, messages } = self;
        write!(f, "{requests} requests, {failed} failed; {ticks} ticks and {messages} messages, {cut} cut")
    }
}

/// A crowd of clients.
pub(crate) struct Crowd {
    address: SocketAddr,
    counts: Arc<Counts>,
    leave: watch::Sender<bool>,
    asking: JoinSet<()>,
    staying: JoinSet<()>,
}

impl Crowd {
    pub(crate) fn at(address: SocketAddr) -> Self {
        let (counts, leave) = (Arc::default(), watch::Sender::new(false));
        Self { address, counts, leave, asking: JoinSet::new(), staying: JoinSet::new() }
    }

    /// Asks `per_second` times a second.
    pub(crate) fn ask(&mut self, per_second: usize) {
        let pause = Duration::from_secs(1) * CLIENTS as u32 / per_second as u32;
        for number in 0..CLIENTS {
            let (address, counts, left) = (self.address, self.counts.clone(), self.leave.subscribe());
            self.asking.spawn(async move {
                sleep(pause * number as u32 / CLIENTS as u32).await;
                ask(address, pause, &counts, &left).await;
            });
        }
    }

    pub(crate) async fn open_streams(&mut self, count: usize) {
        for _ in 0..count {
            let mut client = Client::connect(self.address).await;
            client.send_request("GET", "/stream", &[], b"").await;
            let mut response = client.start_response().await;
            let counts = self.counts.clone();
            self.staying.spawn(async move {
                let mut expected = 0;
                loop {
                    match client.next_piece(&mut response).await {
                        Ok(Some(piece)) if piece == format!("{expected}\n").as_bytes() => expected += 1,
                        Ok(None) => break,
                        _ => {
                            counts.cut.fetch_add(1, Relaxed);
                            break;
                        }
                    }
                }
                counts.ticks.fetch_add(expected, Relaxed);
            });
        }
    }

    pub(crate) async fn open_sockets(&mut self, count: usize) {
        for _ in 0..count {
            let mut socket = ws::connect(self.address, "/ws").await;
            let (counts, left) = (self.counts.clone(), self.leave.subscribe());
            self.staying.spawn(async move {
                while !*left.borrow() {
                    use futures_util::{SinkExt, StreamExt};
                    let text = Message::text(counts.messages.fetch_add(1, Relaxed).to_string());
                    let sent = socket.send(text.clone()).await;
                    let back = tokio::time::timeout(DEADLINE, socket.next()).await;
                    if sent.is_err() || !matches!(back, Ok(Some(Ok(back))) if back == text) {
                        counts.cut.fetch_add(1, Relaxed);
                        return;
                    }
                    sleep(TICK).await;
                }
            });
        }
    }

    /// Ends all streams and leaves.
    pub(crate) async fn leave(mut self, application: &Application) -> Noticed {
        self.leave.send_replace(true);
        while let Some(ended) = self.asking.join_next().await {
            ended.unwrap();
        }
        application.stop.send_replace(true);
        while let Some(ended) = self.staying.join_next().await {
            ended.unwrap();
        }
        let Counts { requests, failed, cut, ticks, messages } = &*self.counts;
        let [requests, failed, cut, ticks, messages] =
            [requests, failed, cut, ticks, messages].map(|count| count.load(Relaxed));
        Noticed { requests, failed, cut, ticks, messages }
    }
}

/// Asks on one connection, and on another when the answer says that it was the last on this one.
async fn ask(address: SocketAddr, pause: Duration, counts: &Counts, left: &watch::Receiver<bool>) {
    let mut due = interval(pause);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut kept = None;
    while !*left.borrow() {
        due.tick().await;
        counts.requests.fetch_add(1, Relaxed);
        let mut client = match kept.take() {
            Some(client) => client,
            None => Client::connect(address).await,
        };
        let sent = client.try_send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        match (sent, client.try_response().await) {
            (Ok(()), Ok(answer)) if answer.status == 200 && answer.text() == "told" => {
                if answer.headers.get("connection") != Some("close") {
                    kept = Some(client);
                }
            }
            _ => {
                counts.failed.fetch_add(1, Relaxed);
            }
        }
    }
}
