//! Interim answers (1xx) pass, and a client that waits for leave to send its body waits for the instance's.

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;

const ASK: &str = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

async fn in_front_of(upstream: &Upstream) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()])).await
}

fn hints() -> Reply {
    Reply::after_body()
        .head(103, &[("Link", "</a.css>; rel=preload"), ("Connection", "X-Hop"), ("X-Hop", "1")])
        .head(103, &[("Link", "</b.css>; rel=preload"), ("Vestibule-Session", "end")])
}

#[tokio::test]
async fn early_hints_come_before_the_answer_in_order_and_cleaned() {
    let signal = Signal::new();
    let upstream =
        Upstream::answering(hints().wait(&signal).head(200, &[("Content-Length", "4")]).raw("page")).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        for link in ["</a.css>; rel=preload", "</b.css>; rel=preload"] {
            let hint = client.response().await;
            assert_eq!((hint.status, hint.headers.get("link")), (103, Some(link)));
            assert_eq!(hint.headers.names(), ["link"]);
        }
        signal.fire();
        assert_eq!(client.response().await.text(), "page");
    }
}

#[tokio::test]
async fn an_http_1_0_client_is_sent_no_interim_answer() {
    let upstream = Upstream::answering(hints().head(200, &[("Content-Length", "4")]).raw("page")).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.0\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "page");
}

#[tokio::test]
async fn an_http_2_client_gets_its_answer_whatever_came_before() {
    let upstream = Upstream::answering(hints().head(200, &[("Content-Length", "4")]).raw("page")).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = H2Client::connect(proxy.address()).await;
    let request = http::Request::get("http://h/").body("".into()).unwrap();
    assert_eq!(client.request(request).await.unwrap().body, "page");
}

#[tokio::test]
async fn endless_interim_answers_end_with_their_time() {
    let many =
        (0..2000).fold(Reply::after_body(), |reply, _| reply.head(102, &[("X-Pad", &"a".repeat(900))]));
    let upstream = Upstream::answering(many.hang()).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nfirst_byte = \"500ms\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let status = loop {
        let status = client.response().await.status;
        if status != 102 {
            break status;
        }
    };
    assert_eq!(status, 504);
}

#[tokio::test]
async fn the_instance_says_when_a_body_is_wanted() {
    let signal = Signal::new();
    let reply = Reply::early().wait(&signal).raw("HTTP/1.1 100 Continue\r\n\r\n");
    let reply = reply.body().head(200, &[("Content-Length", "2")]).raw("ok");
    let upstream = Upstream::answering(reply).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nexpect_continue = \"1h\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    upstream.wait_until("the head", |seen| !seen.requests.is_empty()).await;
    assert_eq!(upstream.only_request().headers.all("expect"), ["100-continue"]);
    signal.fire();
    assert_eq!(client.response().await.status, 100);
    client.send("body").await;
    assert_eq!(client.response().await.text(), "ok");
    upstream.wait_until("the body", |seen| seen.requests[0].body == b"body").await;
}

#[tokio::test]
async fn a_refusal_comes_before_the_body_and_without_leave_to_send_it() {
    let upstream = Upstream::answering(Reply::early().head(413, &[("Content-Length", "0")])).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    assert_eq!(client.response().await.status, 413);
    client.assert_closed().await;
    upstream.wait_until("the end", |seen| seen.closed == 1).await;
    assert_eq!(upstream.only_request().body, b"");
}

#[tokio::test]
async fn an_instance_that_says_nothing_gets_the_body_after_a_while() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nexpect_continue = \"50ms\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send(ASK).await;
    assert_eq!(client.response().await.status, 100);
    client.send("body").await;
    assert_eq!(client.response().await.text(), "body");
}

#[tokio::test]
async fn a_body_that_comes_without_waiting_arrives() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nexpect_continue = \"50ms\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send(format!("{ASK}body")).await;
    assert_eq!(after_interim(&mut client).await, "body");
    client.send("POST / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nnext").await;
    assert_eq!(client.response().await.text(), "next");
    assert_eq!(upstream.requests()[1].headers.get("expect"), None);
}

async fn after_interim(client: &mut Client) -> String {
    loop {
        let response = client.response().await;
        if response.status != 100 {
            return response.text().to_owned();
        }
    }
}

#[tokio::test]
async fn a_retry_that_cannot_be_sent_waits_for_the_next_instance() {
    let refused = crate::support::RefusedPort::new();
    let upstream = Upstream::answering(
        Reply::early().raw("HTTP/1.1 100 Continue\r\n\r\n").body().head(200, &[("Content-Length", "0")]),
    )
    .await;
    let proxy = Vestibule::start(Config::to(&[refused.address(), upstream.address()])).await;
    for _ in 0..4 {
        let mut client = proxy.connect().await;
        client.send(ASK).await;
        assert_eq!(client.response().await.status, 100);
        client.send("body").await;
        assert_eq!(client.response().await.status, 200);
    }
}
