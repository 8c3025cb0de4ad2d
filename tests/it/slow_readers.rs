//! Who reads slowly, or not at all, costs a bounded amount of memory and gets a bounded amount of time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client};
use http::{Request, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, Vestibule};
use crate::support::within;

/// An HTTP/2 client that grants what the test tells it to. Its connection is read as long as `task` runs.
struct Reader {
    sender: client::SendRequest<Bytes>,
    task: JoinHandle<Result<(), h2::Error>>,
}

impl Reader {
    /// One that grants each stream this many bytes at first, and the connection as many as there are.
    async fn connect(address: std::net::SocketAddr, window: u32) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        let mut builder = client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size((1 << 31) - 1);
        let (sender, connection) = within("handshake", builder.handshake(stream)).await.unwrap();
        Self { sender, task: tokio::spawn(connection) }
    }

    async fn get(&mut self, path: &str) -> RecvStream {
        let request = Request::get(format!("http://h{path}")).body(()).unwrap();
        let (answer, _) = self.open(request, true).await;
        within("answer", answer).await.unwrap().into_body()
    }

    async fn open(
        &mut self,
        request: Request<()>,
        ended: bool,
    ) -> (impl Future<Output = Result<Response<RecvStream>, h2::Error>> + use<>, SendStream<Bytes>) {
        std::future::poll_fn(|cx| self.sender.poll_ready(cx)).await.unwrap();
        self.sender.send_request(request, ended).unwrap()
    }
}

/// An HTTP/2 connection that takes whatever there is, asks for `path` on so many streams, and is never read from.
async fn never_reading(address: std::net::SocketAddr, path: &str, streams: u32) -> TcpStream {
    let (get, end) = (0x82, 1);
    let heads = (0..streams).map(|stream| head(get, path, end, 2 * stream + 1));
    let mut connection = within("connect", TcpStream::connect(address)).await.unwrap();
    let bytes = [preface(), heads.collect::<Vec<_>>().concat()].concat();
    within("requests", connection.write_all(&bytes)).await.unwrap();
    connection
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a connection with the largest windows begins with.
fn preface() -> Vec<u8> {
    let largest = (1_u32 << 31) - 1;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[&[0, 4][..], &largest.to_be_bytes()].concat()));
    bytes.extend(frame(8, 0, 0, &(largest - 65_535).to_be_bytes()));
    bytes
}

/// A whole head: an indexed method, `:scheme: http`, `:authority: h`, and `:path` without Huffman coding (RFC 7541).
fn head(method: u8, path: &str, end_stream: u8, stream: u32) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    let payload = [&[method][..], b"\x86\x01\x01h\x04", &[length], path.as_bytes()].concat();
    frame(1, 4 | end_stream, stream, &payload)
}

/// What ended this stream.
async fn end_of(body: &mut RecvStream) -> Option<Reason> {
    within("end of the stream", async {
        loop {
            match body.data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.reason(),
                None => return None,
            }
        }
    })
    .await
}

/// An instance with `/large` (so many bytes), and `/events`, which sends one more with each signal.
async fn instance(bytes: usize, signal: &Signal) -> Upstream {
    let mut events = Reply::chunked(200, &[("content-type", "text/event-stream")]);
    for _ in 0..1000 {
        events = events.chunk(&"data: 1\n\n".repeat(20)).wait(signal);
    }
    Upstream::start(move |request| match request.target.as_str() {
        "/events" => events.clone(),
        "/upload" => Reply::early().stand_still(),
        _ => Reply::large(bytes),
    })
    .await
}

async fn proxy(upstream: &Upstream, tables: &str) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()]).with(tables)).await
}

#[tokio::test]
async fn a_stalled_stream_is_reset_while_another_of_the_connection_goes_on() {
    let signal = Signal::new();
    let upstream = instance(1 << 20, &signal).await;
    let proxy = proxy(&upstream, "[timeouts]\nclient_idle = \"500ms\"").await;
    let mut client = Reader::connect(proxy.address(), 100).await;
    let mut events = client.get("/events").await;
    let mut stalled = client.get("/large").await;
    let beat = tokio::spawn({
        let signal = signal.clone();
        async move {
            loop {
                signal.fire();
                tokio::time::sleep(Duration::from_millis(20)).await; // events are to come all the time
            }
        }
    });
    let reading = tokio::spawn(async move {
        while let Some(Ok(piece)) = events.data().await {
            events.flow_control().release_capacity(piece.len()).unwrap();
        }
    });
    assert_eq!(end_of(&mut stalled).await, Some(Reason::CANCEL));
    assert!(!reading.is_finished(), "the connection or the other stream was ended as well");
    // The connection takes new requests, too.
    let mut next = client.get("/large").await;
    let first = within("data", next.data()).await.unwrap().unwrap();
    assert_eq!(first.len(), 100);
    beat.abort();
    reading.abort();
}

#[tokio::test]
async fn several_stalled_streams_are_reset_each_by_itself() {
    let upstream = instance(1 << 20, &Signal::new()).await;
    let proxy = proxy(&upstream, "[timeouts]\nclient_idle = \"300ms\"").await;
    let mut client = Reader::connect(proxy.address(), 0).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(client.get("/large").await);
    }
    for stream in &mut streams {
        assert_eq!(end_of(stream).await, Some(Reason::CANCEL));
    }
    assert!(!client.task.is_finished());
    proxy.wait_for_metric("upstream_requests_in_flight", "", 0.0).await;
}

/// Reads `/large` over HTTP/2 at 1,000 bytes each 50 ms for three times `idle`; `None` when the test itself paused for
/// longer than half of it.
async fn read_slowly(proxy: &Vestibule, idle: Duration) -> Option<Result<(), h2::Error>> {
    let mut client = Reader::connect(proxy.address(), 1000).await;
    let mut body = client.get("/large").await;
    let (begun, mut last) = (Instant::now(), Instant::now());
    while begun.elapsed() < 3 * idle {
        let piece = match within("data", body.data()).await {
            Some(Ok(piece)) => piece,
            Some(Err(error)) => return Some(Err(error)),
            None => return Some(Ok(())),
        };
        tokio::time::sleep(Duration::from_millis(50)).await; // a slow reader's pace
        body.flow_control().release_capacity(piece.len()).unwrap();
        if last.elapsed() > idle / 2 {
            return None;
        }
        last = Instant::now();
    }
    Some(Ok(()))
}

#[tokio::test]
async fn a_slow_reader_that_makes_progress_is_not_cut() {
    let upstream = instance(1 << 20, &Signal::new()).await;
    let proxy = proxy(&upstream, "[timeouts]\nclient_idle = \"1s\"").await;
    for _ in 0..10 {
        if let Some(read) = read_slowly(&proxy, Duration::from_secs(1)).await {
            return read.unwrap();
        }
    }
    panic!("this machine pauses too often");
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_connection_is_cut() {
    let upstream = instance(64 << 20, &Signal::new()).await;
    let proxy = proxy(&upstream, "[timeouts]\nclient_idle = \"300ms\"").await;
    let _client = never_reading(proxy.address(), "/large", 3).await;
    upstream.wait_until("all requests", |seen| seen.requests.len() == 3).await;
    proxy.wait_for_metric("client_connections", "", 0.0).await;
}

#[tokio::test]
async fn what_clients_are_not_taking_is_bounded_for_all_together() {
    let upstream = instance(8 << 20, &Signal::new()).await;
    let keys = "[limits]\nbuffer_bytes = \"1MiB\"\n[timeouts]\nclient_idle = \"60s\"";
    let proxy = proxy(&upstream, keys).await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        let mut reader = Reader::connect(proxy.address(), 0).await;
        let mut streams = Vec::new();
        for _ in 0..50 {
            streams.push(reader.get("/large").await);
        }
        readers.push((reader, streams));
    }
    // What is in use cannot exceed the limit by more than a piece for each worker.
    let held = proxy.metric("client_buffer_bytes", "").await;
    assert!(held <= f64::from(1_u32 << 20) + 32_768.0, "{held}");
    // A reader that reads is served, since those who take nothing are given up early.
    let mut client = H2Client::connect(proxy.address()).await;
    let body = client.request(Request::get("http://h/large").body(Default::default()).unwrap()).await;
    assert_eq!(body.unwrap().body.len(), 8 << 20);
    // Their connections are not.
    assert!(readers.iter().all(|(reader, _)| !reader.task.is_finished()));
}

/// How much the memory of the program grows by `then`, at the most.
async fn growth<T>(program: &Program, then: impl Future<Output = T>) -> (usize, T) {
    let before = program.process.memory("VmRSS");
    let done = then.await;
    let (mut most, begun) = (0, Instant::now());
    while begun.elapsed() < Duration::from_secs(2) {
        most = most.max(program.process.memory("VmRSS"));
        tokio::time::sleep(Duration::from_millis(20)).await; // to see the most of it, not to wait for anything
    }
    (most.saturating_sub(before), done)
}

/// The program in front of `upstream`, used once so that what it allocates but once is there.
async fn warm(upstream: &Upstream) -> Program {
    let patient = "[timeouts]\nconnect = \"60s\"";
    let program = Program::start(Config::to(&[upstream.address()]).with(patient)).await;
    let mut client = H2Client::connect(program.address).await;
    let request = || Request::get("http://h/large").body(Default::default()).unwrap();
    client.request(request()).await.unwrap();
    crate::support::client::get(program.address, "/large").await;
    program
}

const KIB: usize = 1024;
/// What an HTTP/2 connection with a hundred streams may cost: what it may hold, and the streams themselves.
const MOST: usize = 6 << 20;

#[tokio::test]
async fn an_http_2_connection_of_answers_that_nobody_reads_holds_a_bounded_amount() {
    let upstream = instance(4 << 20, &Signal::new()).await;
    let program = warm(&upstream).await;
    let connections = async {
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(never_reading(program.address, "/large", 100).await);
        }
        upstream.wait_until("all requests", |seen| seen.requests.len() >= 302).await;
        open
    };
    let (grown, _open) = growth(&program, connections).await;
    assert!(grown <= 3 * MOST, "{} per connection", grown / 3);
}

#[tokio::test]
async fn small_pieces_that_nobody_reads_hold_no_more_than_large_ones() {
    let signal = Signal::new();
    let upstream = instance(100_000, &signal).await;
    let program = warm(&upstream).await;
    let streams = async {
        let client = never_reading(program.address, "/events", 100).await;
        for _ in 0..100 * 900 {
            signal.fire();
        }
        upstream.wait_until("all requests", |seen| seen.requests.len() >= 102).await;
        client
    };
    let (grown, _open) = growth(&program, streams).await;
    assert!(grown <= MOST, "{grown}");
}

#[tokio::test]
async fn an_http_1_client_that_does_not_read_holds_a_bounded_amount() {
    let upstream = instance(16 << 20, &Signal::new()).await;
    let program = warm(&upstream).await;
    let connections = async {
        let mut clients = Vec::new();
        for _ in 0..40 {
            let mut client = Client::connect(program.address).await;
            client.send_request("GET", "/large", &[], b"").await;
            clients.push(client);
        }
        upstream.wait_until("all requests", |seen| seen.requests.len() >= 42).await;
        clients
    };
    let (grown, _clients) = growth(&program, connections).await;
    assert!(grown / 40 <= 2 * 64 * KIB, "{} per connection", grown / 40);
}

#[tokio::test]
async fn uploads_that_the_instance_does_not_read_hold_a_bounded_amount() {
    let upstream = instance(1 << 20, &Signal::new()).await;
    let program = warm(&upstream).await;
    let uploads = async {
        let mut clients = Vec::new();
        for _ in 0..40 {
            let mut client = Client::connect(program.address).await;
            client.send("POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n").await;
            clients.push(tokio::spawn(async move {
                loop {
                    client.send(vec![b'x'; 1 << 20]).await;
                }
            }));
        }
        upstream.wait_until("all requests", |seen| seen.requests.len() >= 42).await;
        clients
    };
    let (grown, clients) = growth(&program, uploads).await;
    assert!(grown / 40 <= 4 * 64 * KIB, "{} per connection", grown / 40);
    clients.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn uploads_over_http_2_that_the_instance_does_not_read_hold_a_bounded_amount() {
    let upstream = instance(1 << 20, &Signal::new()).await;
    let program = warm(&upstream).await;
    let uploads = async {
        let mut client = Reader::connect(program.address, 65_535).await;
        let mut streams = Vec::new();
        for _ in 0..100 {
            let (answer, mut body) =
                client.open(Request::post("http://h/upload").body(()).unwrap(), false).await;
            body.send_data(Bytes::from(vec![b'x'; 4 << 20]), false).unwrap();
            streams.push((answer, body));
        }
        upstream.wait_until("all requests", |seen| seen.requests.len() >= 102).await;
        (client, streams)
    };
    let (grown, _open) = growth(&program, uploads).await;
    assert!(grown <= MOST, "{grown}");
}

/// Each costs its sender ten bytes. The connection may end of it, but must not grow by it.
#[tokio::test]
async fn uploads_in_pieces_of_one_byte_that_the_instance_does_not_read_hold_a_bounded_amount() {
    let upstream = instance(1 << 20, &Signal::new()).await;
    let program = warm(&upstream).await;
    let (post, streams) = (0x83, [1, 3, 5, 7]);
    let uploads = async {
        let mut connection = within("connect", TcpStream::connect(program.address)).await.unwrap();
        let heads = streams.map(|stream| head(post, "/upload", 0, stream)).concat();
        connection.write_all(&[preface(), heads].concat()).await.unwrap();
        upstream.wait_until("all requests", |seen| seen.requests.len() >= 2 + streams.len()).await;
        let pieces = streams.map(|stream| frame(0, 0, stream, b"x")).concat();
        for _ in 0..200 {
            if within("pieces", connection.write_all(&pieces.repeat(1000))).await.is_err() {
                break;
            }
        }
        connection
    };
    let (grown, _connection) = growth(&program, uploads).await;
    assert!(grown <= MOST, "{grown}");
}

#[tokio::test]
async fn one_stalled_upload_does_not_stop_another_of_the_connection() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/upload" => Reply::early().stand_still(),
        _ => Reply::body_back(),
    })
    .await;
    let proxy = proxy(&upstream, "").await;
    let mut client = Reader::connect(proxy.address(), 65_535).await;
    let (_answer, mut stalled) = client.open(Request::post("http://h/upload").body(()).unwrap(), false).await;
    stalled.send_data(Bytes::from(vec![b'x'; 64 << 20]), false).unwrap();
    upstream.wait_until("the stalled one", |seen| seen.requests.len() == 1).await;
    let (answer, mut body) = client.open(Request::post("http://h/").body(()).unwrap(), false).await;
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    assert_eq!(within("answer", answer).await.unwrap().status(), 200);
}

#[tokio::test]
async fn memory_is_given_back_when_those_who_did_not_read_have_left() {
    let upstream = instance(16 << 20, &Signal::new()).await;
    let program = warm(&upstream).await;
    let resting = program.process.memory("VmRSS");
    let mut clients = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(program.address).await;
        client.send_request("GET", "/large", &[], b"").await;
        clients.push(client);
    }
    upstream.wait_until("all requests", |seen| seen.requests.len() >= 202).await;
    let held = growth(&program, async {}).await.0 + program.process.memory("VmRSS");
    drop(clients);
    let mut left = held;
    for _ in 0..1200 {
        left = program.process.memory("VmRSS");
        // What was never needed before stays for the next time.
        if left <= resting + held.saturating_sub(resting) / 8 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // there is nobody who could tell
    }
    panic!("{resting} at rest, {held} held, {left} two minutes after they left");
}
