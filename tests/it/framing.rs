//! Where a request ends must be clear to everybody who reads it; and what a client may do with its own half.

use std::time::Duration;

use crate::forwarding::assert_problem;
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";

async fn in_front_of(upstream: &Upstream) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()])).await
}

async fn ask(proxy: &Vestibule, bytes: impl AsRef<[u8]>) -> (Client, Response) {
    let mut client = proxy.connect().await;
    client.send(bytes).await;
    let response = client.response().await;
    (client, response)
}

#[tokio::test]
async fn chunks_that_are_not_written_by_the_grammar_are_refused_at_once() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    for body in [
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;bad[=x\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0\r\nX-T: y\n\r\n",
        "5\r\nhello\r\n0\r\nX-T : y\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;=a\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello",
    ] {
        let (mut client, response) = ask(&proxy, format!("{CHUNKED}{body}")).await;
        assert_eq!(response.status, 400, "{body:?}");
        client.assert_closed().await;
    }
    assert!(upstream.requests().iter().all(|request| !request.complete));
}

#[tokio::test]
async fn chunks_that_are_written_by_the_grammar_pass() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for body in [
        "5;a\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0;c\r\n\r\n",
        "5 ; a = \"b; \\\" c\" ;d=e\r\nhello\r\n0\r\n\r\n",
        "00005\r\nhello\r\n000\r\n\r\n",
        "2\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: y\r\nX-U:\r\n\r\n",
    ] {
        client.send(format!("{CHUNKED}{body}")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "hello"), "{body:?}");
    }
    for byte in format!("{CHUNKED}5;a=b\r\nhello\r\n0\r\nX-T: y\r\n\r\n").as_bytes() {
        client.send([*byte]).await;
    }
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn a_chunk_size_may_not_have_endless_digits() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let (mut client, response) = ask(&proxy, format!("{CHUNKED}{}", "0".repeat(4096))).await;
    assert_eq!(response.status, 400);
    client.assert_closed().await;
}

#[tokio::test]
async fn a_connection_ends_with_a_request_whose_framing_was_refused() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    for headers in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: gzip, chunked",
        "Content-Length: 5, 6",
        "Content-Length: 5\r\nTransfer-Encoding: gzip",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n\r\n0\r\n\r\n");
        let (mut client, response) = ask(&proxy, bytes).await;
        assert_eq!(response.status, 400, "{headers:?}");
        assert_eq!(response.headers.get("connection"), Some("close"), "{headers:?}");
        client.assert_closed().await;
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn methods_that_servers_read_differently_are_refused() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    for method in ["get", "Get", "TRACK1", "G'E|T", "GET_", "G.T"] {
        let (_, response) = ask(&proxy, format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert_problem(&response, 400);
    }
    for method in ["M-SEARCH", "PROPFIND", "PURGE", "VERSION-CONTROL"] {
        let (_, response) = ask(&proxy, format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        assert_eq!(response.status, 200, "{method}");
    }
    let mut client = H2Client::connect(proxy.address()).await;
    let request = http::Request::builder().method("get").uri("http://h/").body("".into()).unwrap();
    assert_eq!(client.request(request).await.unwrap().status.as_u16(), 400);
}

#[tokio::test]
async fn an_endless_method_is_not_implemented() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let (mut client, response) = ask(&proxy, "A".repeat(100_000)).await;
    assert_eq!(response.status, 501);
    client.assert_closed().await;
    proxy.wait_for_metric("http_requests_total", "status=\"501\"", 1.0).await;
}

#[tokio::test]
async fn only_a_get_without_a_body_may_become_a_websocket() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    for (start, rest, expected) in [
        ("POST / HTTP/1.1", "Content-Length: 5\r\n\r\nhello", "hello"),
        ("GET / HTTP/1.1", "Content-Length: 5\r\n\r\nhello", "hello"),
        ("GET / HTTP/1.1", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("PUT / HTTP/1.1", "Content-Length: 0\r\n\r\n", ""),
    ] {
        let (_, response) = ask(&proxy, format!("{start}\r\nHost: h\r\n{upgrade}{rest}")).await;
        assert_eq!((response.status, response.text()), (200, expected), "{start} {rest:?}");
        let request = upstream.requests().pop().unwrap();
        assert_eq!(request.headers.get("upgrade"), None, "{start} {rest:?}");
    }
}

#[tokio::test]
async fn an_http_1_0_client_that_wants_to_stay_is_told_when_it_cannot() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/length" => Reply::text(200, "page"),
        _ => Reply::chunked(200, &[]).chunk("page").end(),
    })
    .await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for (target, connection) in [("/length", "keep-alive"), ("/stream", "close")] {
        client.send(format!("GET {target} HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.text(), "page");
        assert_eq!(response.headers.all("connection"), [connection], "{target}");
    }
}

#[tokio::test]
async fn a_head_that_does_not_end_is_given_up_over_http_2_too() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nrequest_head = \"300ms\"");
    let proxy = Vestibule::start(config).await;
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    // Without END_HEADERS, and with less than it announces.
    for headers in [&b"\0\0\x01\x01\0\0\0\0\x01\x82"[..], b"\0\0\x09\x01\x04\0\0\0\x01\x82"] {
        let mut client = proxy.connect().await;
        client.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], settings, headers].concat()).await;
        client.read_to_end().await;
    }
    proxy.wait_for_metric("http_requests_total", "status=\"408\"", 2.0).await;
}

#[tokio::test]
async fn cookies_that_http_2_splits_count_as_one_header() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = H2Client::connect(proxy.address()).await;
    let mut request = http::Request::get("http://h/").body("".into()).unwrap();
    for crumb in 0..300 {
        request.headers_mut().append("cookie", format!("c{crumb}=1").parse().unwrap());
    }
    assert_eq!(client.request(request).await.unwrap().status.as_u16(), 200);
    let cookies = upstream.only_request().headers.get("cookie").unwrap().to_owned();
    assert_eq!(cookies.split("; ").count(), 300);
}

#[tokio::test]
async fn a_client_that_sends_nothing_more_still_gets_its_answer() {
    let signal = Signal::new();
    let reply = Reply::after_body().wait(&signal).head(200, &[("Content-Length", "8")]);
    let upstream = Upstream::answering(reply.raw("half").wait(&signal).raw("done")).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nhalf_closed = \"1h\"");
    let proxy = Vestibule::start(config).await;
    for request in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
        format!("{CHUNKED}4\r\nbody\r\n0\r\n\r\n"),
    ] {
        let mut client = proxy.connect().await;
        client.send(&request).await;
        client.end().await;
        let asked = upstream.requests().len();
        upstream.wait_until("the request", |seen| seen.requests.len() > asked || asked > 0).await;
        signal.fire();
        let mut response = client.start_response().await;
        assert_eq!(client.next_piece(&mut response).await.unwrap().unwrap(), b"half", "{request:?}");
        signal.fire();
        client.finish(&mut response).await.unwrap();
        client.assert_closed().await;
    }
}

#[tokio::test]
async fn a_client_that_has_left_is_told_from_one_that_only_sends_nothing_more() {
    let upstream = Upstream::answering(Reply::after_body().hang()).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nhalf_closed = \"50ms\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    upstream.wait_until("the request", |seen| !seen.requests.is_empty()).await;
    drop(client);
    upstream.wait_until("freed", |seen| seen.closed == seen.opened).await;
}

#[tokio::test]
async fn a_client_that_leaves_within_a_stream_is_noticed_though_half_closing_is_patient() {
    let signal = Signal::new();
    let stream =
        Reply::chunked(200, &[]).chunk("one").wait(&signal).chunk("two").delay(Duration::from_millis(50));
    let upstream = Upstream::answering(stream.chunk("three").hang()).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nhalf_closed = \"1h\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    client.start_response().await;
    drop(client);
    signal.fire();
    upstream.wait_until("freed", |seen| seen.closed == seen.opened).await;
}

#[tokio::test]
async fn a_request_that_ends_too_early_is_never_whole() {
    let upstream = Upstream::answering(Reply::body_back()).await;
    let proxy = in_front_of(&upstream).await;
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf".to_owned(),
        format!("{CHUNKED}9\r\nhalf"),
    ] {
        let mut client = proxy.connect().await;
        client.send(&request).await;
        client.end().await;
        let _ = client.try_response().await; // a refusal or the end: both are right
    }
    upstream.wait_until("both ended", |seen| seen.closed == seen.opened).await;
    assert!(upstream.requests().iter().all(|request| !request.complete));
}
