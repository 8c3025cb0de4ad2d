//! WebSockets go through; nothing else becomes a tunnel.

use std::time::Duration;

use tokio_tungstenite::tungstenite::Message;

use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::ws;

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

fn switching() -> Reply {
    Reply::early().head(101, &[("Connection", "Upgrade"), ("Upgrade", "websocket"), ("X-App", "1")])
}

async fn in_front_of(upstream: &Upstream) -> Vestibule {
    Vestibule::start(Config::to(&[upstream.address()])).await
}

#[tokio::test]
async fn websocket_messages_go_both_ways() {
    let proxy = Vestibule::start(Config::to(&[ws::echo_server().await])).await;
    let mut one = ws::connect(proxy.address(), "/one").await;
    let mut two = ws::connect(proxy.address(), "/two").await;
    for n in 0..50 {
        assert_eq!(ws::exchange(&mut one, &format!("one {n}")).await, Message::text(format!("one {n}")));
        assert_eq!(ws::exchange(&mut two, &format!("two {n}")).await, Message::text(format!("two {n}")));
    }
    let large = "x".repeat(1_000_000);
    assert_eq!(ws::exchange(&mut one, &large).await, Message::text(large));
}

#[tokio::test]
async fn the_handshake_is_passed_on_and_early_bytes_are_not_lost() {
    let upstream = Upstream::answering(switching().raw("hello").echo_bytes()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send(format!("{ASK}X-User-Id: evil\r\n\r\nearly")).await;
    let response = client.start_response().await;
    assert_eq!(response.status, 101);
    assert_eq!(response.headers.get("upgrade"), Some("websocket"));
    assert!(response.headers.get("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(response.headers.get("x-app"), Some("1"));
    assert_eq!(client.read(10).await, b"helloearly");
    client.send("late").await;
    assert_eq!(client.read(4).await, b"late");

    let request = upstream.only_request();
    assert_eq!(request.headers.all("upgrade"), ["websocket"]);
    assert_eq!(request.headers.all("connection").len(), 1);
    assert_eq!(request.headers.get("sec-websocket-key"), Some("AAAAAAAAAAAAAAAAAAAAAA=="));
    assert_eq!(request.headers.get("x-user-id"), None);
}

#[tokio::test]
async fn either_side_ends_the_tunnel() {
    let upstream = Upstream::answering(switching().echo_bytes()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send(format!("{ASK}\r\n")).await;
    assert_eq!(client.start_response().await.status, 101);
    drop(client);
    upstream.wait_until("the client's end", |seen| seen.closed == 1).await;

    let upstream = Upstream::answering(switching().raw("bye").close()).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    client.send(format!("{ASK}\r\n")).await;
    assert_eq!(client.start_response().await.status, 101);
    assert_eq!(client.read(3).await, b"bye");
    client.assert_closed().await;
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    let upstream = Upstream::answering(switching().echo_bytes()).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\ntunnel_idle = \"2s\"");
    let proxy = Vestibule::start(config).await;
    let mut client = proxy.connect().await;
    client.send(format!("{ASK}\r\n")).await;
    assert_eq!(client.start_response().await.status, 101);
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(600)).await; // together longer than the longest silence
        client.send("x").await;
        assert_eq!(client.read(1).await, b"x");
    }
    client.assert_closed().await;
    upstream.wait_until("closed", |seen| seen.closed == 1).await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_answer() {
    let upstream = Upstream::answering(Reply::text(403, "no")).await;
    let proxy = in_front_of(&upstream).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(format!("{ASK}\r\n")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (403, "no"));
    }
}

#[tokio::test]
async fn a_101_nobody_asked_for_is_no_tunnel() {
    let upstream = Upstream::answering(switching().echo_bytes()).await;
    let proxy = in_front_of(&upstream).await;
    assert_eq!(proxy.get("/", &[]).await.status, 502);
}

#[tokio::test]
async fn only_websocket_is_asked_for_upstream() {
    let upstream = Upstream::answering(Reply::text(200, "plain")).await;
    let proxy = in_front_of(&upstream).await;
    for headers in [
        &[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")][..],
        &[("Connection", "Upgrade"), ("Upgrade", "websocket, h2c")],
        &[("Connection", "Upgrade"), ("Upgrade", "TLS/1.0")],
        &[("Connection", "keep-alive"), ("Upgrade", "websocket")],
        &[("Upgrade", "websocket")],
    ] {
        assert_eq!(proxy.get("/", headers).await.text(), "plain", "{headers:?}");
        let names = upstream.requests().pop().unwrap().headers.names();
        assert!(!names.contains(&"upgrade".to_owned()), "{headers:?} became {names:?}");
        assert!(!names.contains(&"http2-settings".to_owned()), "{headers:?} became {names:?}");
    }
}

#[tokio::test]
async fn bytes_behind_a_refused_upgrade_are_no_request_upstream() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(
        Config::to(&[upstream.address()])
            .with("[[route]]\npath = \"/private\"\nupstream = \"app\"\non_absent = \"unauthorized\""),
    )
    .await;
    let mut client = proxy.connect().await;
    client.send(format!("{ASK}\r\nGET /private HTTP/1.1\r\nHost: h\r\n\r\n")).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(client.response().await.status, 401);
    assert_eq!(upstream.only_request().target, "/ws");
}
