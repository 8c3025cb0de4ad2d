//! A request that is still being sent when its answer begins goes on by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

/// More than all socket buffers on the way hold.
const LARGE: usize = 32 << 20;
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Serves one request: sends a [`LARGE`] answer as soon as it comes, and reads until its last chunk has come. The
/// result is how many bytes came.
async fn both_at_once() -> (SocketAddr, JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n");
    let answer = [head.into_bytes(), vec![b'x'; LARGE]].concat();
    let serving = tokio::spawn(async move {
        let (mut reading, mut writing) = listener.accept().await.unwrap().0.into_split();
        reading.peek(&mut [0]).await.unwrap(); // an answer before the request would be none
        let writer = tokio::spawn(async move {
            let _ = writing.write_all(&answer).await; // a client that has seen enough may leave
            writing
        });
        let total = read_upload(&mut reading).await;
        drop(writer);
        total
    });
    (address, serving)
}

async fn read_upload(stream: &mut (impl AsyncReadExt + Unpin)) -> usize {
    let (mut buffer, mut tail, mut total) = (vec![0; 256 * 1024], Vec::new(), 0);
    while !tail.ends_with(LAST_CHUNK) {
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "cut after {total} bytes");
        total += count;
        tail.extend_from_slice(&buffer[..count]);
        tail.drain(..tail.len().saturating_sub(LAST_CHUNK.len()));
    }
    total
}

#[tokio::test]
async fn an_upload_arrives_whole_while_its_answer_is_not_read() {
    let (address, upload) = both_at_once().await;
    let proxy = Vestibule::start(Config::to(&[address])).await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let chunk = [format!("{LARGE:x}\r\n").into_bytes(), vec![b'a'; LARGE], b"\r\n".to_vec()].concat();
    let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    within("the upload", async {
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&chunk).await.unwrap();
        client.write_all(LAST_CHUNK).await.unwrap();
        assert!(upload.await.unwrap() > LARGE);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_sends_is_not_idle_though_it_reads_nothing() {
    let (address, upload) = both_at_once().await;
    let config = Config::to(&[address]).with("[timeouts]\nclient_idle = \"2s\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..20 {
        sleep(Duration::from_millis(150)).await; // more than the longest silence in all
        client.send("3\r\nabc\r\n").await;
    }
    client.send(LAST_CHUNK).await;
    within("the upload", upload).await.unwrap();
}

fn impatient(upstream: &Upstream, idle: &str) -> Config {
    Config::to(&[upstream.address()]).with(&format!("[timeouts]\nupstream_idle = \"{idle}\""))
}

#[tokio::test]
async fn an_instance_may_be_silent_while_it_receives() {
    let signal = Signal::new();
    let reply =
        Reply::early().head(200, &[("Transfer-Encoding", "chunked")]).wait(&signal).chunk("late").end();
    let upstream = Upstream::answering(reply).await;
    let proxy = Vestibule::start(impatient(&upstream, "2s")).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let mut response = client.start_response().await;
    for _ in 0..20 {
        sleep(Duration::from_millis(150)).await; // more than the longest silence in all
        client.send("3\r\nabc\r\n").await;
    }
    signal.fire();
    assert_eq!(client.next_piece(&mut response).await.unwrap(), Some(b"late".to_vec()));
    client.send(LAST_CHUNK).await;
    assert_eq!(client.next_piece(&mut response).await.unwrap(), None);
}

#[tokio::test]
async fn an_exchange_that_is_silent_both_ways_is_given_up() {
    let reply = Reply::early().head(200, &[("Transfer-Encoding", "chunked")]).chunk("early").hang();
    let upstream = Upstream::answering(reply).await;
    let proxy = Vestibule::start(impatient(&upstream, "800ms")).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let mut response = client.start_response().await;
    let begun = Instant::now();
    assert!(client.finish(&mut response).await.is_err());
    assert_eq!(response.text(), "early");
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    upstream.wait_until("given up", |seen| seen.closed == seen.opened).await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_both_frees_the_instance() {
    let reply = Reply::early().head(200, &[("Transfer-Encoding", "chunked")]).chunk("early").hang();
    let upstream = Upstream::answering(reply).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf").await;
    client.start_response().await;
    drop(client);
    upstream.wait_until("freed", |seen| seen.closed == seen.opened).await;
}
