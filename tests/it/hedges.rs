//! A slow instance is not waited for alone.

use std::time::{Duration, Instant};

use crate::support::NEVER;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;

const HEDGES: &str = "upstream_hedges_total";

fn slowly(millis: u64, status: u16, text: &str) -> Reply {
    let length = text.len().to_string();
    let head = Reply::after_body().delay(Duration::from_millis(millis));
    head.head(status, &[("Content-Length", &length)]).raw(text)
}

async fn in_front_of(first: &Upstream, second: &Upstream, retry: &str) -> Vestibule {
    hedging_after("50ms", first, second, retry).await
}

async fn hedging_after(time: &str, first: &Upstream, second: &Upstream, retry: &str) -> Vestibule {
    let lines = format!("[upstream.hedge]\nafter = \"{time}\"\n[upstream.retry]\n{retry}");
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
    let go_on = Signal::new();
    let waiting = Reply::after_body().wait(&go_on).head(200, &[("Content-Length", "5")]).raw("first");
    let (first, second) =
        (Upstream::answering(waiting).await, Upstream::answering(Reply::after_body().hang()).await);
    let proxy = in_front_of(&first, &second, "").await;
    let answered = async {
        second.wait_until("the other attempt", |seen| seen.requests.len() == 1).await;
        go_on.fire();
    };
    let (response, ()) = tokio::join!(proxy.get("/", &[]), answered);
    assert_eq!(response.text(), "first");
    second.wait_until("closed", |seen| seen.closed == 1).await;
    assert_eq!(proxy.metric("upstream_requests_in_flight", "").await, 0.0);

    let quick = Upstream::answering(Reply::text(200, "quick")).await;
    let proxy = hedging_after(NEVER, &quick, &quick_too().await, "").await;
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
    let none = || Reply::after_body().close();
    for (is_first_late, first, second, expected) in [
        (true, Reply::text(200, "good"), Reply::text(500, "bad"), (200, "good")),
        (false, Reply::text(500, "bad"), Reply::text(200, "good"), (200, "good")),
        (false, Reply::text(500, "first"), Reply::text(500, "second"), (500, "first")),
        (true, Reply::text(500, "first"), none(), (500, "first")),
        (false, none(), Reply::text(503, "second"), (503, "second")),
    ] {
        let [go_on, go_on_too] = [Signal::new(), Signal::new()];
        let one = Upstream::answering(Reply::after_body().wait(&go_on).then_all(first)).await;
        let other = Upstream::answering(Reply::after_body().wait(&go_on_too).then_all(second)).await;
        let proxy = in_front_of(&one, &other, "").await;
        let in_order = async {
            other.wait_until("the other attempt", |seen| seen.requests.len() == 1).await;
            let (early, late) = if is_first_late { (&go_on_too, &go_on) } else { (&go_on, &go_on_too) };
            early.fire();
            let upstream = if is_first_late { &other } else { &one };
            upstream.wait_until("its end", |seen| seen.answered + seen.closed == 1).await;
            // The only worker has it when it has answered what came later.
            let mut stranger = proxy.connect().await;
            stranger.send("GET / HTTP/1.1\r\n\r\n").await;
            assert_eq!(stranger.response().await.status, 400);
            late.fire();
        };
        let (response, ()) = tokio::join!(proxy.get("/", &[]), in_order);
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
