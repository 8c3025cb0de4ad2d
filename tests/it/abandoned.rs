//! Where an instance has slots, a request that was given up keeps its slot as long as the instance works on it.

use std::time::Duration;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;

const IN_FLIGHT: &str = "upstream_requests_in_flight";
const WAITING: &str = "upstream_queue_length";
const SLOTS: &str = "max_requests = 1\nqueue = { length = 8, timeout = \"10m\" }";

/// Answers with its name. It works on `/work` until the signal, whoever has left, as a worker without an event loop does.
async fn app(name: &'static str, done: &Signal) -> Upstream {
    let done = done.clone();
    Upstream::start(move |request| match request.target.as_str() {
        "/work" => Reply::after_body().busy(&done).raw("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"),
        _ => Reply::text(200, name),
    })
    .await
}

async fn start(app: &Upstream, upstream: &str) -> Vestibule {
    Vestibule::start(Config::to(&[app.address()]).upstream(&format!("{SLOTS}\n{upstream}"))).await
}

async fn begin_work(proxy: &Vestibule, app: &Upstream) -> Client {
    let mut client = proxy.connect().await;
    client.send_request("POST", "/work", &[], b"").await;
    app.wait_until("it works", |seen| seen.requests.len() == 1).await;
    client
}

#[tokio::test]
async fn the_slot_is_free_when_the_instance_answers() {
    let done = Signal::new();
    let app = app("a", &done).await;
    let proxy = start(&app, "").await;
    drop(begin_work(&proxy, &app).await);
    proxy.wait_for_metric("http_requests_total", "status=\"499\"", 1.0).await;
    assert_eq!(proxy.metric(IN_FLIGHT, "").await, 1.0);
    let mut next = proxy.connect().await;
    next.send_request("GET", "/", &[], b"").await;
    proxy.wait_for_metric(WAITING, "", 1.0).await;
    assert_eq!(app.requests().len(), 1);
    done.fire();
    assert_eq!(next.response().await.text(), "a");
    proxy.wait_for_metric(IN_FLIGHT, "", 0.0).await;
}

#[tokio::test]
async fn the_slot_is_free_when_the_instance_closes_the_connection() {
    let app = Upstream::start(|request| match request.target.as_str() {
        "/work" => Reply::after_body().hang(),
        _ => Reply::text(200, "a"),
    })
    .await;
    let proxy = start(&app, "abandoned = \"10m\"").await;
    // This one notices that the client has left, and closes.
    drop(begin_work(&proxy, &app).await);
    assert_eq!(proxy.get("/", &[]).await.text(), "a");
    proxy.wait_for_metric(IN_FLIGHT, "", 0.0).await;
}

#[tokio::test]
async fn the_slot_is_free_after_a_bound_whatever_the_instance_does() {
    let done = Signal::new();
    let app = app("a", &done).await;
    let proxy = start(&app, "abandoned = \"100ms\"").await;
    drop(begin_work(&proxy, &app).await);
    assert_eq!(proxy.get("/", &[]).await.text(), "a");
    proxy.wait_for_metric(IN_FLIGHT, "", 0.0).await;
}

#[tokio::test]
async fn a_request_that_took_too_long_for_us_keeps_its_slot_too() {
    let done = Signal::new();
    let app = app("a", &done).await;
    let config = Config::to(&[app.address()]).upstream(SLOTS).with("[timeouts]\nfirst_byte = \"100ms\"");
    let proxy = Vestibule::start(config).await;
    let mut client = begin_work(&proxy, &app).await;
    assert_eq!(client.response().await.status, 504);
    assert_eq!(proxy.metric(IN_FLIGHT, "").await, 1.0);
    done.fire();
    proxy.wait_for_metric(IN_FLIGHT, "", 0.0).await;
}

#[tokio::test]
async fn a_check_that_finds_the_slot_of_an_abandoned_request_says_busy() {
    let done = Signal::new();
    let app = app("a", &done).await;
    let health = "[upstream.health]\npath = \"/\"\ninterval = \"20ms\"\ntimeout = \"1s\"\nfall = 1";
    let proxy = start(&app, health).await;
    proxy.wait_for_metric("upstream_instance_condition", "condition=\"up\"", 1.0).await;
    let mut client = proxy.connect().await;
    client.send_request("POST", "/work", &[], b"").await;
    app.wait_until("it works", |seen| seen.requests.iter().any(|one| one.target == "/work")).await;
    drop(client);
    proxy.wait_for_metric("http_requests_total", "status=\"499\"", 1.0).await;
    let busy = async || proxy.metric("upstream_health_checks_total", "result=\"busy\"").await;
    let before = busy().await;
    while busy().await < before + 3.0 {
        tokio::time::sleep(Duration::from_millis(5)).await; // numbers are for asking, not for waiting
    }
    assert_eq!(proxy.metric("upstream_health_checks_total", "result=\"failed\"").await, 0.0);
    assert_eq!(proxy.metric("upstream_instance_condition", "condition=\"up\"").await, 1.0);
    done.fire();
    proxy.wait_for_metric(IN_FLIGHT, "", 0.0).await;
}

/// Two upstreams with the same instance; `/other` leads to the second.
async fn two_upstreams(app: &Upstream, first: usize, second: usize) -> Vestibule {
    let queue = "queue = { length = 8, timeout = \"10m\" }";
    let other = format!(
        "[[upstream]]\nname = \"other\"\nmax_requests = {second}\n{queue}\n[[upstream.instance]]\naddress = \"{}\"\n\
         [[route]]\npath = \"/other\"\nupstream = \"other\"",
        app.address()
    );
    let config = Config::to(&[app.address()]).upstream(&format!("max_requests = {first}\n{queue}"));
    Vestibule::start(config.with(&other)).await
}

#[tokio::test]
async fn an_instance_of_two_upstreams_gets_no_more_than_the_larger_limit_and_neither_starves() {
    let done = Signal::new();
    let held = done.clone();
    let app = Upstream::start(move |request| match request.target.ends_with("/held") {
        true => Reply::after_body().wait(&held).raw("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nheld"),
        false => Reply::text(200, "a"),
    })
    .await;
    let proxy = two_upstreams(&app, 1, 3).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect().await;
        client.send_request("GET", "/other/held", &[], b"").await;
        clients.push(client);
    }
    app.wait_until("two slots are taken", |seen| seen.requests.len() == 2).await;
    // The first has a slot of its own, and nothing is in its way.
    assert_eq!(proxy.get("/", &[]).await.text(), "a");
    let mut first = proxy.connect().await;
    first.send_request("GET", "/held", &[], b"").await;
    app.wait_until("three slots are taken", |seen| seen.requests.len() == 4).await;
    let mut waiting = proxy.connect().await;
    waiting.send_request("GET", "/other/", &[], b"").await;
    proxy.wait_for_metric(WAITING, "upstream=\"other\"", 1.0).await;
    let mut also_waiting = proxy.connect().await;
    also_waiting.send_request("GET", "/", &[], b"").await;
    proxy.wait_for_metric(WAITING, "upstream=\"app\"", 1.0).await;
    // Whoever ends makes room for who waits for the other upstream, too.
    (0..3).for_each(|_| done.fire());
    assert_eq!(waiting.response().await.text(), "a");
    assert_eq!(also_waiting.response().await.text(), "a");
    for mut client in clients.into_iter().chain([first]) {
        assert_eq!(client.response().await.text(), "held");
    }
    proxy.wait_for_metric(IN_FLIGHT, "", 0.0).await;
}
