//! A slow instance is not waited for alone.

use std::time::{Duration, Instant};

use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

const HEDGES: &str = "upstream_hedges_total";

fn slowly(millis: u64, status: u16, text: &str) -> Reply {
    let length = text.len().to_string();
    let head = Reply::after_body().delay(Duration::from_millis(millis));
    head.head(status, &[("Content-Length", &length)]).raw(text)
}

async fn in_front_of(first: &Upstream, second: &Upstream, retry: &str) -> Vestibule {
    let lines = format!("[upstream.hedge]\nafter = \"50ms\"\n[upstream.retry]\n{retry}");
    Vestibule::start(Config::to(&[first.address(), second.address()]).upstream(&lines)).await
}

#[tokio::test]
async fn the_first_answer_wins_and_the_other_attempt_is_dropped() {
    for method in ["GET", "HEAD"] {
        let slow = Upstream::answering(Reply::after_body().hang()).await;
        let quick = Upstream::answering(Reply::text(200, "quick")).await;
        let proxy = in_front_of(&slow, &quick, "").await;
        let begun = Instant::now();
        assert_eq!(proxy.connect().await.request(method, "/", &[], b"").await.status, 200);
        assert!(begun.elapsed() >= Duration::from_millis(50));
        slow.wait_until("closed", |seen| seen.closed == 1).await;
        assert_eq!(proxy.metric(HEDGES, "").await, 1.0);
        assert_eq!(proxy.metric("upstream_requests_in_flight", "").await, 0.0);
        assert_eq!((slow.requests().len(), quick.requests().len()), (1, 1));
    }
}

#[tokio::test]
async fn a_first_attempt_that_answers_soon_enough_is_not_joined_and_one_that_answers_first_wins() {
    let (first, second) = (
        Upstream::answering(slowly(100, 200, "first")).await,
        Upstream::answering(slowly(400, 200, "second")).await,
    );
    let proxy = in_front_of(&first, &second, "").await;
    assert_eq!(proxy.get("/", &[]).await.text(), "first");
    second.wait_until("closed", |seen| seen.closed == 1).await;
    assert_eq!(proxy.metric("upstream_requests_in_flight", "").await, 0.0);

    let quick = Upstream::answering(Reply::text(200, "quick")).await;
    let proxy = in_front_of(&quick, &quick_too().await, "").await;
    for _ in 0..4 {
        proxy.get("/", &[]).await;
    }
    assert_eq!(proxy.metric(HEDGES, "").await, 0.0);
}

async fn quick_too() -> Upstream {
    Upstream::answering(Reply::text(200, "quick")).await
}

#[tokio::test]
async fn a_bad_answer_waits_for_the_other_attempt() {
    for (first, second, expected) in [
        (slowly(150, 200, "good"), Reply::text(500, "bad"), (200, "good")),
        (slowly(100, 500, "bad"), slowly(150, 200, "good"), (200, "good")),
        (slowly(100, 500, "first"), slowly(150, 500, "second"), (500, "first")),
        (slowly(150, 500, "first"), Reply::after_body().close(), (500, "first")),
        (
            Reply::after_body().delay(Duration::from_millis(100)).close(),
            slowly(150, 503, "second"),
            (503, "second"),
        ),
    ] {
        let (one, other) = (Upstream::answering(first).await, Upstream::answering(second).await);
        let proxy = in_front_of(&one, &other, "").await;
        let response = proxy.get("/", &[]).await;
        assert_eq!((response.status, response.text()), expected);
        assert_eq!((one.requests().len(), other.requests().len()), (1, 1));
    }
}

#[tokio::test]
async fn only_what_may_be_asked_twice_is_hedged() {
    for (method, retry) in [
        ("POST", ""),
        ("DELETE", ""),
        ("GET", "never = [\"GET /\"]"),
        ("GET", "budget = 0\nmin_per_second = 0"),
    ] {
        let (one, other) = (
            Upstream::answering(slowly(150, 200, "")).await,
            Upstream::answering(slowly(150, 200, "")).await,
        );
        let proxy = in_front_of(&one, &other, retry).await;
        assert_eq!(proxy.connect().await.request(method, "/", &[], b"").await.status, 200);
        assert_eq!(proxy.metric(HEDGES, "").await, 0.0, "{method} {retry}");
        assert_eq!(one.requests().len() + other.requests().len(), 1, "{method} {retry}");
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_slot_is_not_hedged() {
    let slow = Upstream::answering(slowly(150, 200, "")).await;
    let lines = "max_requests = 1\n[upstream.hedge]\nafter = \"20ms\"";
    let other = Upstream::answering(slowly(150, 200, "")).await;
    let proxy = Vestibule::start(Config::to(&[slow.address(), other.address()]).upstream(lines)).await;
    let three = tokio::join!(proxy.get("/", &[]), proxy.get("/", &[]), proxy.get("/", &[]));
    assert_eq!([three.0.status, three.1.status, three.2.status], [200; 3]);
    assert!(proxy.metric(HEDGES, "").await <= 1.0);
    assert!(slow.requests().len() + other.requests().len() <= 4);
}
