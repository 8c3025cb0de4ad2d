//! A connection that an instance closes just when its next request is under way costs nobody anything that can be saved.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::forwarding::assert_problem;
use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

const RESENDS: &str = "upstream_resends_total";
const RETRIES: &str = "upstream_retries_total";
const STICKY: &str = "[session]\nmode = \"sticky\"";

/// Answers the first request of each connection with its name and ends the connection with `end` at the next.
async fn one_per_connection(name: &'static str, end: Reply) -> Upstream {
    let met = Mutex::new(HashSet::new());
    Upstream::start(move |request| match met.lock().unwrap().insert(request.connection) {
        true => Reply::text(200, name),
        false => end.clone(),
    })
    .await
}

fn ends() -> [Reply; 2] {
    [Reply::after_body().close(), Reply::after_body().reset()]
}

async fn ask(proxy: &Vestibule, method: &str, cookie: &str) -> Response {
    proxy.connect().await.request(method, "/a", &[("Cookie", cookie)], b"").await
}

#[tokio::test]
async fn a_kept_connection_that_ends_without_a_byte_costs_neither_tie_nor_budget() {
    for end in ends() {
        let apps = [one_per_connection("a", end.clone()).await, one_per_connection("b", end).await];
        let retry = "[upstream.retry]\nbudget = 0\nmin_per_second = 0\n[upstream.outlier]\nconsecutive = 1";
        let config = Config::to(&apps.each_ref().map(Upstream::address)).upstream(retry).with(STICKY);
        let proxy = Vestibule::start(config).await;
        let first = ask(&proxy, "GET", "").await;
        let tie = first.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        for method in ["GET", "OPTIONS", "PUT", "DELETE", "GET"] {
            let next = ask(&proxy, method, &tie).await;
            assert_eq!((next.status, next.text()), (200, first.text()), "{method}");
            assert_eq!(next.headers.get("set-cookie"), None, "{method}");
        }
        assert!(proxy.metric(RESENDS, "upstream=\"app\"").await >= 3.0);
        assert_eq!(proxy.metric(RETRIES, "").await, 0.0);
        assert_eq!(proxy.metric("affinity_total", "outcome=\"kept\"").await, 5.0);
        assert_eq!(proxy.metric("upstream_ejections_total", "").await, 0.0);
    }
}

#[tokio::test]
async fn with_one_instance_and_no_second_attempt_it_is_answered_all_the_same() {
    for end in ends() {
        let app = one_per_connection("a", end).await;
        let config = Config::to(&[app.address()]).upstream("[upstream.retry]\nattempts = 1");
        let proxy = Vestibule::start(config).await;
        for _ in 0..6 {
            assert_eq!(ask(&proxy, "GET", "").await.status, 200);
        }
    }
}

#[tokio::test]
async fn with_slots_the_closed_connection_makes_room_for_the_fresh_one() {
    let app = one_per_connection("a", Reply::after_body().close()).await;
    let proxy = Vestibule::start(Config::to(&[app.address()]).upstream("max_requests = 1")).await;
    for _ in 0..6 {
        assert_eq!(ask(&proxy, "GET", "").await.status, 200);
    }
}

#[tokio::test]
async fn what_may_run_once_only_is_never_sent_again() {
    for (method, body) in [("POST", ""), ("POST", "x"), ("PATCH", ""), ("PUT", "x"), ("GET", "x")] {
        let app = one_per_connection("a", Reply::after_body().close()).await;
        let proxy = Vestibule::start(Config::to(&[app.address()])).await;
        assert_eq!(ask(&proxy, "GET", "").await.status, 200);
        let response = proxy.connect().await.request(method, "/a", &[], body.as_bytes()).await;
        assert_problem(&response, 502);
        assert_eq!(app.requests().len(), 2, "{method} {body}");
    }
    let app = one_per_connection("a", Reply::after_body().close()).await;
    let never = "[upstream.retry]\nnever = [\"GET /a\"]";
    let proxy = Vestibule::start(Config::to(&[app.address()]).upstream(never)).await;
    assert_eq!(ask(&proxy, "GET", "").await.status, 200);
    assert_problem(&ask(&proxy, "GET", "").await, 502);
    assert_eq!(app.requests().len(), 2);
}

#[tokio::test]
async fn an_instance_that_breaks_on_a_fresh_connection_too_is_to_blame() {
    let (app, turns) = (Mutex::new(0), [true, false, false]);
    let app = Upstream::start(move |_| {
        let mut turn = app.lock().unwrap();
        *turn += 1;
        match turns.get(*turn - 1) {
            Some(true) => Reply::text(200, "a"),
            _ => Reply::after_body().close(),
        }
    })
    .await;
    let other = Upstream::answering(Reply::text(200, "b")).await;
    let outlier = "[upstream.outlier]\nconsecutive = 1";
    let config = Config::to(&[app.address(), other.address()]).upstream(outlier);
    let proxy = Vestibule::start(config).await;
    let met: Vec<_> = [
        ask(&proxy, "GET", "").await.text().to_owned(),
        ask(&proxy, "GET", "").await.text().to_owned(),
        ask(&proxy, "GET", "").await.text().to_owned(),
    ]
    .into();
    assert_eq!((met, app.requests().len()), (vec!["a".into(), "b".into(), "b".into()], 3));
    assert_eq!(proxy.metric(RETRIES, "reason=\"broken\"").await, 1.0);
    proxy.wait_for_metric("upstream_ejections_total", "reason=\"consecutive\"", 1.0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_within_its_head_is_the_instances_fault() {
    let half = Reply::after_body().raw("HTTP/1.1 200 OK\r\nx").close();
    let app = one_per_connection("a", half).await;
    let proxy = Vestibule::start(Config::to(&[app.address()])).await;
    assert_eq!(ask(&proxy, "GET", "").await.status, 200);
    assert_problem(&ask(&proxy, "GET", "").await, 502);
    assert_eq!(app.requests().len(), 2);
}
