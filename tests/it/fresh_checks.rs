//! An instance that was away, or that nobody knows yet, serves when a check has found it good, not before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::json;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Vestibule, command};
use crate::support::within;

const TOKEN: &str = "operator-token-0123456789";
/// Checks come soon, and one that hangs is not over within a test: a verdict of bad checks never comes.
const CHECKS: &str = "[upstream.health]\ninterval = \"20ms\"\ntimeout = \"10m\"";

/// An instance whose socket is bound and that answers nothing while it starts.
struct App {
    upstream: Upstream,
    starting: Arc<AtomicBool>,
}

impl App {
    async fn start(name: &'static str, starting: bool) -> Self {
        let starting = Arc::new(AtomicBool::new(starting));
        let is_starting = starting.clone();
        let upstream = Upstream::start(move |_| match is_starting.load(SeqCst) {
            true => Reply::after_body().hang(),
            false => Reply::text(200, name),
        });
        Self { upstream: upstream.await, starting }
    }

    fn set_starting(&self, starting: bool) {
        self.starting.store(starting, SeqCst);
    }
}

async fn start(apps: &[&App], checks: &str) -> Vestibule {
    let addresses: Vec<_> = apps.iter().map(|app| app.upstream.address()).collect();
    let config = Config::to(&addresses).upstream(checks);
    Vestibule::start(config.token(TOKEN)).await
}

async fn order(proxy: &Vestibule, app: &App, state: &str) {
    let body = json!({ "instance": app.upstream.address(), "state": state }).to_string();
    let headers = [("Authorization", &*format!("Bearer {TOKEN}")), ("Content-Type", "application/json")];
    let mut client = Client::connect(proxy.admin_address()).await;
    let answer = client.request("POST", "/api/v1/upstreams", &headers, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn wait_for_up(proxy: &Vestibule, app: &App, up: f64) {
    let labels = format!("instance=\"{}\",condition=\"up\"", app.upstream.address());
    proxy.wait_for_metric("upstream_instance_condition", &labels, up).await;
}

/// Twelve requests are all answered by this one.
async fn assert_served_by(proxy: &Vestibule, name: &str) {
    for _ in 0..12 {
        assert_eq!(proxy.get("/", &[]).await.text(), name);
    }
}

#[tokio::test]
async fn after_ready_an_instance_waits_for_a_good_check_made_after_it() {
    for state in ["drain", "down"] {
        let (a, b) = (App::start("a", false).await, App::start("b", false).await);
        let proxy = start(&[&a, &b], CHECKS).await;
        wait_for_up(&proxy, &a, 1.0).await;
        wait_for_up(&proxy, &b, 1.0).await;
        order(&proxy, &a, state).await;
        a.set_starting(true);
        order(&proxy, &a, "ready").await;
        assert_served_by(&proxy, "b").await;
        let labels = format!("instance=\"{}\",condition=\"unproven\"", a.upstream.address());
        assert_eq!(proxy.metric("upstream_instance_condition", &labels).await, 1.0);
        a.set_starting(false);
        // The check that hangs is over only with its connection.
        order(&proxy, &a, state).await;
        order(&proxy, &a, "ready").await;
        within("a serves again", async { while proxy.get("/", &[]).await.text() != "a" {} }).await;
    }
}

#[tokio::test]
async fn at_the_start_requests_go_to_who_has_been_found_good() {
    let (a, b) = (App::start("a", true).await, App::start("b", false).await);
    let proxy = start(&[&a, &b], CHECKS).await;
    assert_served_by(&proxy, "b").await;
    assert_eq!(proxy.admin("/readyz?verbose").await.status, 200);
}

#[tokio::test]
async fn after_a_failed_connect_an_instance_waits_for_a_good_check() {
    let (mut a, b) = (App::start("a", false).await, App::start("b", false).await);
    // No check of its own accord finds out that it is gone.
    let proxy = start(&[&a, &b], "[upstream.health]\ninterval = \"1h\"\ntimeout = \"10m\"").await;
    wait_for_up(&proxy, &a, 1.0).await;
    wait_for_up(&proxy, &b, 1.0).await;
    a.upstream.stop().await;
    let failures = async || proxy.metric("upstream_connect_failures_total", "").await;
    within("a request finds nobody there", async {
        while failures().await == 0.0 {
            assert_eq!(proxy.get("/", &[]).await.text(), "b");
        }
    })
    .await;
    a.set_starting(true);
    a.upstream.restart().await;
    let labels = format!("instance=\"{}\",condition=\"backing_off\"", a.upstream.address());
    proxy.wait_for_metric("upstream_instance_condition", &labels, 0.0).await;
    assert_served_by(&proxy, "b").await;
}

#[tokio::test]
async fn when_no_other_is_left_an_unproven_instance_serves_after_a_while_and_readyz_says_so() {
    // Its checks get no answer, everything else does.
    let app = Upstream::start(|request| match request.target.as_str() {
        "/health" => Reply::after_body().hang(),
        _ => Reply::text(200, "a"),
    })
    .await;
    let queue = "queue = { length = 8, timeout = \"5m\" }\n[upstream.health]\ninterval = \"20ms\"\ntimeout = \"10m\"\nunproven_after = \"3s\"";
    let proxy = Vestibule::start(Config::to(&[app.address()]).upstream(queue)).await;
    let readiness = proxy.admin("/readyz?verbose").await;
    assert_eq!(readiness.status, 503);
    assert!(
        readiness.text().contains("instances: failed: app: no instance has passed a check"),
        "{readiness:?}"
    );
    assert_eq!(proxy.get("/", &[]).await.text(), "a");
    let readiness = proxy.admin("/readyz?verbose").await;
    assert_eq!(readiness.status, 200);
    let expected = "instances: failed (not required): app: serves with instances that have passed no check";
    assert!(readiness.text().contains(expected), "{readiness:?}");
}

#[tokio::test]
async fn ready_with_wait_ends_when_the_instance_has_been_found_good() {
    let (a, b) = (App::start("a", false).await, App::start("b", false).await);
    let proxy = start(&[&a, &b], CHECKS).await;
    wait_for_up(&proxy, &a, 1.0).await;
    order(&proxy, &a, "down").await;
    let ready = async |arguments: &[&str]| {
        let mut ready = command();
        let (address, admin) = (a.upstream.address().to_string(), proxy.admin_address().to_string());
        ready.args(["upstreams", "ready", &address, "--wait", "--admin", &admin]).args(arguments);
        ready.env("VESTIBULE_ADMIN_TOKEN", TOKEN);
        tokio::task::spawn_blocking(move || ready.output().unwrap()).await.unwrap()
    };
    a.set_starting(true);
    let output = ready(&["--deadline", "1s"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    a.set_starting(false);
    order(&proxy, &a, "down").await;
    let output = ready(&[]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    wait_for_up(&proxy, &a, 1.0).await;
}
