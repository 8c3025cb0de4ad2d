//! How connections to instances are kept: for how long, for how many requests, and ready before they are needed.

use std::time::Duration;

use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

async fn behind(upstream: &Upstream, keys: &str) -> Vestibule {
    let table = format!("[upstream.connections]\n{keys}");
    Vestibule::start(Config::to(&[upstream.address()]).upstream(&table)).await
}

async fn ask(proxy: &Vestibule, times: usize) {
    for _ in 0..times {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
}

#[tokio::test]
async fn a_connection_carries_as_many_requests_as_it_may() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = behind(&upstream, "idle_timeout = \"30s\"\nmax_requests = 3").await;
    ask(&proxy, 7).await;
    assert_eq!(upstream.connections_opened(), 3);
    let connections: Vec<_> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 0, 0, 1, 1, 1, 2]);
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_not_used_again() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = behind(&upstream, "idle_timeout = \"30s\"\nmax_lifetime = \"2s\"").await;
    ask(&proxy, 3).await;
    assert_eq!(upstream.connections_opened(), 1);
    tokio::time::sleep(Duration::from_millis(2_020)).await; // it grows old
    ask(&proxy, 2).await;
    assert_eq!(upstream.connections_opened(), 2);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = behind(&upstream, "idle_timeout = \"100ms\"").await;
    ask(&proxy, 1).await;
    upstream.wait_until("the connection is closed", |seen| (seen.opened, seen.closed) == (1, 1)).await;
    ask(&proxy, 1).await;
    assert_eq!(upstream.connections_opened(), 2);
}

#[tokio::test]
async fn connections_are_ready_before_they_are_needed() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = behind(&upstream, "idle_timeout = \"30s\"\nwarm = 2").await;
    upstream.wait_until("two connections are open", |seen| seen.opened == 2).await;
    ask(&proxy, 4).await;
    assert_eq!(upstream.connections_opened(), 2);
}
