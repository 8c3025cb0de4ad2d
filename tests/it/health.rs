//! Only instances that pass their checks get requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::forwarding::assert_problem;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Request, Upstream};
use crate::support::vestibule::Vestibule;

const CHECK: &str = "[upstream.health]\npath = \"/health?deep\"\ninterval = \"20ms\"\n\
     rise = 2\nfall = 3\ntimeout = \"1m\"";

/// An instance whose checks are answered with a status that the test may change.
async fn instance(name: &'static str) -> (Upstream, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let answer = status.clone();
    let upstream = Upstream::start(move |request| match request.target.as_str() {
        "/health?deep" => Reply::text(answer.load(Relaxed), ""),
        _ => Reply::text(200, name),
    });
    (upstream.await, status)
}

fn checks(upstream: &Upstream) -> Vec<Request> {
    upstream.requests().into_iter().filter(|request| request.target == "/health?deep").collect()
}

async fn served_by(proxy: &Vestibule) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(proxy.get("/", &[]).await.text().to_owned());
    }
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn an_instance_leaves_when_its_checks_fail_and_returns_when_they_succeed() {
    let ((a, _), (b, status)) = (instance("a").await, instance("b").await);
    let proxy = Vestibule::start(Config::to(&[a.address(), b.address()]).upstream(CHECK)).await;
    proxy.wait_for_metric("upstream_instance_up", "", 2.0).await;
    assert_eq!(served_by(&proxy).await, ["a", "b"]);
    for (answer, up, served) in [(500, 1.0, &["a"][..]), (302, 2.0, &["a", "b"]), (404, 1.0, &["a"])] {
        status.store(answer, Relaxed);
        proxy.wait_for_metric("upstream_instance_up", "", up).await;
        assert_eq!(served_by(&proxy).await, served, "checks answered {answer}");
    }
    let check = checks(&b).pop().unwrap();
    assert_eq!(
        (check.method.as_str(), check.headers.get("host")),
        ("GET", Some(b.address().to_string().as_str()))
    );
}

#[tokio::test]
async fn one_bad_check_is_forgiven() {
    let (upstream, status) = instance("a").await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).upstream(CHECK)).await;
    proxy.wait_for_metric("upstream_instance_up", "", 1.0).await;
    status.store(500, Relaxed);
    let before = upstream.requests().len();
    upstream.wait_until("one bad check", |seen| seen.requests.len() > before).await;
    status.store(200, Relaxed);
    let before = upstream.requests().len();
    upstream.wait_until("more checks", |seen| seen.requests.len() > before + 5).await;
    assert_eq!(proxy.metric("upstream_instance_up", "").await, 1.0);
    assert_eq!(served_by(&proxy).await, ["a"]);
}

#[tokio::test]
async fn without_an_instance_in_use_it_is_unavailable() {
    let (upstream, status) = instance("a").await;
    status.store(503, Relaxed);
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).upstream(CHECK)).await;
    proxy.wait_for_metric("upstream_instance_condition", "condition=\"down\"", 1.0).await;
    let response = proxy.get("/", &[]).await;
    assert_problem(&response, 503);
    assert!(response.headers.get("retry-after").is_some());
    assert!(upstream.requests().iter().all(|request| request.target == "/health?deep"));
}

#[tokio::test]
async fn a_silent_instance_fails_its_checks() {
    let upstream = Upstream::answering(Reply::after_body().hang()).await;
    let check = CHECK.replace("\"1m\"", "\"200ms\"");
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).upstream(&check)).await;
    proxy.wait_for_metric("upstream_instance_condition", "condition=\"down\"", 1.0).await;
}

#[tokio::test]
async fn a_sticky_client_leaves_an_instance_whose_checks_fail() {
    let ((a, status_of_a), (b, status_of_b)) = (instance("a").await, instance("b").await);
    let config = Config::to(&[a.address(), b.address()]).upstream(CHECK).with("[session]\nmode = \"sticky\"");
    let proxy = Vestibule::start(config).await;
    proxy.wait_for_metric("upstream_instance_up", "", 2.0).await;
    let first = proxy.get("/", &[]).await;
    let cookie = first.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let status = if first.text() == "a" { status_of_a } else { status_of_b };
    status.store(500, Relaxed);
    proxy.wait_for_metric("upstream_instance_up", "", 1.0).await;
    let second = proxy.get("/", &[("Cookie", &cookie)]).await;
    assert_ne!(second.text(), first.text());
    assert!(second.headers.get("set-cookie").is_some());
}
