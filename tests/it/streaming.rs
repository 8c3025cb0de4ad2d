//! Bytes go on as they come, in both directions, and stop when either side leaves.

use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;

async fn in_front_of(upstream: &Upstream) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()])).await
}

#[tokio::test]
async fn every_event_arrives_before_the_next_is_sent() {
    let signal = Signal::new();
    let mut reply = Reply::chunked(200, &[("Content-Type", "text/event-stream")]);
    for n in 0..20 {
        reply = reply.wait(&signal).chunk(&format!("data: {n}\n\n"));
    }
    let upstream = Upstream::answering(reply.end()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send_request("GET", "/", &[], b"").await;
    let mut response = client.start_response().await; // the head comes before any event
    for n in 0..20 {
        signal.fire();
        let event = client.next_piece(&mut response).await.unwrap();
        assert_eq!(event, Some(format!("data: {n}\n\n").into_bytes()));
    }
    assert_eq!(client.next_piece(&mut response).await.unwrap(), None);
}

#[tokio::test]
async fn an_upload_reaches_the_instance_while_it_is_sent() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for n in 1..=5_usize {
        client.send("3\r\nabc\r\n").await;
        let all = move |bytes: usize| bytes == 3 * n;
        upstream.wait_until("the piece", |seen| seen.requests.iter().any(|r| all(r.body.len()))).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "abcabcabcabcabc");
}

#[tokio::test]
async fn an_answer_may_begin_before_the_request_has_ended() {
    let signal = Signal::new();
    let reply = Reply::early().head(200, &[("Transfer-Encoding", "chunked")]).chunk("early");
    let upstream = Upstream::answering(reply.wait(&signal).end()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab").await;
    let mut response = client.start_response().await;
    assert_eq!(client.next_piece(&mut response).await.unwrap(), Some(b"early".to_vec()));
    client.send("cd").await;
    signal.fire();
    assert_eq!(client.next_piece(&mut response).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_instance() {
    let upstream = Upstream::answering(Reply::chunked(200, &[]).chunk("first").hang()).await;
    let waiting = Upstream::answering(Reply::after_body().hang()).await;
    for upstream in [upstream, waiting] {
        let proxy = in_front_of(&upstream).await;
        let mut client = proxy.connect().await;
        client.send_request("GET", "/", &[], b"").await;
        upstream.wait_until("the request", |seen| seen.requests.len() == 1).await;
        drop(client);
        upstream.wait_until("freed", |seen| seen.closed == seen.opened).await;
    }
}

#[tokio::test]
async fn an_instance_that_falls_silent_is_given_up() {
    let upstream = Upstream::answering(Reply::chunked(200, &[]).chunk("first").hang()).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nupstream_idle = \"200ms\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send_request("GET", "/", &[], b"").await;
    let mut response = client.start_response().await;
    assert!(client.finish(&mut response).await.is_err());
    upstream.wait_until("given up", |seen| seen.closed == seen.opened).await;
}

#[tokio::test]
async fn a_large_body_comes_back_byte_for_byte() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let body: Vec<u8> = (0..4_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let response = proxy.connect().await.request("PUT", "/", &[], &body).await;
    assert_eq!(response.status, 200);
    assert!(response.body == body, "{} bytes came back", response.body.len());
}
