//! A client gets what it is allowed, and a clear answer when it wants more.

use std::time::{Duration, Instant};

use crate::forwarding::assert_problem;
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

async fn limited(upstream: &Upstream, tables: &str) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()]).with(tables)).await
}

async fn echo() -> Upstream {
    Upstream::answering(Reply::body_back()).await
}

#[tokio::test]
async fn a_target_over_its_limit_is_414() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[limits]\nuri_bytes = \"1KiB\"").await;
    assert_eq!(proxy.get(&format!("/{}", "a".repeat(1023)), &[]).await.status, 200);
    assert_problem(&proxy.get(&format!("/{}", "a".repeat(1024)), &[]).await, 414);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn headers_over_their_limits_are_431() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[limits]\nheader_bytes = \"8KiB\"\nheader_count = 20").await;
    let long = "a".repeat(9000);
    assert_eq!(proxy.get("/", &[("X-Long", &long)]).await.status, 431);
    assert_eq!(proxy.get("/", &[("X-Long", &long[..7000])]).await.status, 200);
    assert_eq!(proxy.get("/", &[("X-One", "1"); 25]).await.status, 431);
    assert_eq!(proxy.get("/", &[("X-One", "1"); 15]).await.status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn http_2_has_the_same_limit_on_header_lines() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[limits]\nheader_count = 20").await;
    let mut client = H2Client::connect(proxy.address()).await;
    for (lines, status) in [(25, 431), (15, 200)] {
        let mut request = http::Request::get("http://h/").body("".into()).unwrap();
        for _ in 0..lines {
            request.headers_mut().append("x-one", "1".parse().unwrap());
        }
        assert_eq!(client.request(request).await.unwrap().status.as_u16(), status);
    }
}

#[tokio::test]
async fn http_2_has_the_same_limit_on_header_bytes_and_counts_who_exceeds_it() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[limits]\nheader_bytes = \"8KiB\"").await;
    let mut client = H2Client::connect(proxy.address()).await;
    for (length, status) in [(9000, 431), (7000, 200)] {
        let request = http::Request::get("http://h/").header("x-long", "a".repeat(length));
        let response = client.request(request.body("".into()).unwrap()).await.unwrap();
        assert_eq!(response.status.as_u16(), status);
    }
    proxy.wait_for_metric("http_requests_total", "status=\"431\"", 1.0).await;
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_declared_body_over_its_limit_is_413_before_it_is_sent() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[limits]\nbody_bytes = \"1KiB\"").await;
    let mut client = proxy.connect().await;
    assert_eq!(client.request("POST", "/", &[], &[b'a'; 1024]).await.body.len(), 1024);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1025\r\n\r\n").await;
    assert_problem(&client.response().await, 413);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_counted_body_over_its_limit_is_413_and_never_looks_complete() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[limits]\nbody_bytes = \"1KiB\"").await;
    let mut client = proxy.connect().await;
    let chunk = format!("400\r\n{}\r\n", "a".repeat(1024));
    client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}")).await;
    client.send("1\r\na\r\n0\r\n\r\n").await;
    assert_problem(&client.response().await, 413);
    assert!(upstream.requests().iter().all(|request| !request.complete));
}

#[tokio::test]
async fn a_body_left_unread_is_never_read_as_the_next_request() {
    let upstream = echo().await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).route("host = \"app\"")).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n";
    let mut client = proxy.connect().await;
    client.request("POST", "/", &[("Host", "nobody")], smuggled.as_bytes()).await;
    if client.try_send("GET /next HTTP/1.1\r\nHost: app\r\n\r\n").await.is_ok() {
        let _ = client.try_response().await; // answered or closed: both are right
    }
    assert!(upstream.requests().iter().all(|request| request.target != "/smuggled"));
}

#[tokio::test]
async fn slow_headers_are_408() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[timeouts]\nrequest_head = \"500ms\"").await;
    let begun = Instant::now();
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n").await;
    assert_eq!(client.response().await.status, 408);
    client.assert_closed().await;
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[timeouts]\nrequest_head = \"300ms\"").await;
    let mut client = proxy.connect().await;
    client.assert_closed().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_keep_alive() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[timeouts]\nkeep_alive = \"3s\"").await;
    let mut client = proxy.connect().await;
    assert_eq!(client.request("GET", "/", &[], b"").await.status, 200);
    tokio::time::sleep(Duration::from_millis(300)).await; // idle, and not for too long
    assert_eq!(client.request("GET", "/", &[], b"").await.status, 200);
    client.assert_closed().await;
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_given_up() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[timeouts]\nclient_idle = \"300ms\"").await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_problem(&client.response().await, 408);
    upstream.wait_until("given up", |seen| seen.closed == seen.opened).await;
    assert!(upstream.requests().iter().all(|request| !request.complete));
}

#[tokio::test]
async fn a_client_that_stops_reading_is_given_up() {
    let endless = "x".repeat(16 << 20); // more than all socket buffers on the way
    let upstream = Upstream::answering(Reply::text(200, &endless)).await;
    let proxy = limited(&upstream, "[timeouts]\nclient_idle = \"500ms\"").await;
    let mut client = proxy.connect().await;
    let begun = Instant::now();
    client.send_request("GET", "/", &[], b"").await;
    upstream.wait_until("the request", |seen| seen.requests.len() == 1).await;
    upstream.wait_until("given up", |seen| seen.closed == seen.opened).await;
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    let mut response = client.start_response().await;
    assert!(client.finish(&mut response).await.is_err());
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_their_turn() {
    let upstream = echo().await;
    let proxy = limited(&upstream, "[limits]\nconnections = 2").await;
    let mut first = proxy.connect().await;
    let mut second = proxy.connect().await;
    assert_eq!(first.request("GET", "/", &[], b"").await.status, 200);
    assert_eq!(second.request("GET", "/", &[], b"").await.status, 200);
    let mut third = Client::connect(proxy.address()).await;
    third.send_request("GET", "/", &[], b"").await;
    let early = tokio::time::timeout(Duration::from_millis(200), third.response()).await;
    assert!(early.is_err(), "served over the limit: {early:?}");
    drop(first);
    assert_eq!(third.response().await.status, 200);
}
