//! A check asks what it is told to ask, and takes neither a busy instance for a dead one nor its last connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use vestibule::lab::stub::{Options, Stub};

use crate::support::client::{self, Client, Response};
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Program, Vestibule};
use crate::support::{metrics, within};

const OFTEN: &str = "interval = \"20ms\"\ntimeout = \"200ms\"\nrise = 1\nfall = 1\n";

/// An instance behind checks, and its answer to everything, which the test may change.
async fn checked(check: &str, reply: Reply) -> (Vestibule, Upstream, Arc<Mutex<Reply>>) {
    let reply = Arc::new(Mutex::new(reply));
    let current = reply.clone();
    let upstream = Upstream::start(move |_| current.lock().unwrap().clone()).await;
    let config = Config::to(&[upstream.address()]).upstream(&format!("[upstream.health]\n{OFTEN}{check}"));
    (Vestibule::start(config).await, upstream, reply)
}

/// Whether the instance becomes up, and down, with these answers.
async fn assert_judged(check: &str, good: &[Reply], bad: &[Reply]) {
    let (proxy, _upstream, reply) = checked(check, bad[0].clone()).await;
    for bad in bad {
        *reply.lock().unwrap() = bad.clone();
        proxy.wait_for_metric("upstream_instance_condition", "condition=\"down\"", 1.0).await;
        for good in good {
            *reply.lock().unwrap() = good.clone();
            proxy.wait_for_metric("upstream_instance_condition", "condition=\"up\"", 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_check_asks_what_it_is_told_to() {
    let check = "method = \"OPTIONS\"\npath = \"/up?deep=1\"\nhost = \"app.example.com:81\"";
    let (proxy, upstream, _) = checked(check, Reply::text(204, "")).await;
    proxy.wait_for_metric("upstream_instance_condition", "condition=\"up\"", 1.0).await;
    let request = upstream.requests().remove(0);
    assert_eq!((request.method.as_str(), request.target.as_str()), ("OPTIONS", "/up?deep=1"));
    assert_eq!(request.headers.all("host"), ["app.example.com:81"]);
}

#[tokio::test]
async fn only_the_stated_statuses_are_good() {
    let status = |status| Reply::text(status, "");
    assert_judged("status = \"204,300-399\"", &[status(204), status(307)], &[status(200), status(404)]).await;
}

#[tokio::test]
async fn an_answer_must_hold_the_stated_text_within_its_first_64_kib() {
    let late = format!("{}ready", "x".repeat(64 * 1024 - 4));
    let in_time = &late[1..];
    let chunks = Reply::chunked(200, &[]).chunk("all rea").chunk("dy").end();
    let good = [Reply::text(200, "ready"), chunks, Reply::text(200, in_time)];
    assert_judged("body = \"ready\"", &good, &[Reply::text(200, "red"), Reply::text(200, &late)]).await;
}

#[tokio::test]
async fn an_answer_that_drips_is_over_its_deadline() {
    let dripping = Reply::chunked(200, &[]).chunk("not").hang();
    assert_judged("body = \"ready\"", &[Reply::text(200, "ready")], &[dripping]).await;
}

#[tokio::test]
async fn for_a_tcp_check_a_connection_is_enough() {
    let (proxy, mut upstream, _) = checked("kind = \"tcp\"", Reply::after_body().hang()).await;
    for _ in 0..2 {
        proxy.wait_for_metric("upstream_instance_condition", "condition=\"up\"", 1.0).await;
        upstream.stop().await;
        proxy.wait_for_metric("upstream_instance_condition", "condition=\"down\"", 1.0).await;
        upstream.restart().await;
    }
    assert!(upstream.requests().is_empty());
}

/// A Dify-like instance that serves so many connections and keeps idle ones for long; and the most it had at a time.
async fn stub(slots: usize) -> (SocketAddr, impl Fn() -> u64) {
    let options = Options { slots, keep_alive: Duration::from_secs(60), ..Options::default() };
    let stub = Stub::bind(options).await.unwrap();
    let (address, handle) = (stub.local_addr(), stub.handle());
    tokio::spawn(stub.run(std::future::pending()));
    (address, move || handle.snapshot().connections.peak)
}

async fn behind_ten_slots(instance: SocketAddr) -> Vestibule {
    let tables = "max_requests = 10\n[upstream.connections]\nidle_timeout = \"60s\"\n\
         [upstream.health]\ninterval = \"20ms\"\ntimeout = \"3s\"";
    Vestibule::start(Config::to(&[instance]).upstream(tables).workers(2)).await
}

/// Streams that hold all the slots.
async fn ten_streams(proxy: &Vestibule, knobs: serde_json::Value) -> Vec<(Client, Response)> {
    let body = json!({"inputs": knobs, "query": "hello", "response_mode": "streaming", "user": "u-1", "conversation_id": "", "files": []});
    let headers = [("content-type", "application/json"), ("authorization", "Bearer app-chat-key")];
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut client = proxy.connect().await;
        client.send_request("POST", "/v1/chat-messages", &headers, body.to_string().as_bytes()).await;
        let head = client.start_response().await;
        assert_eq!(head.status, 200);
        streams.push((client, head));
    }
    streams
}

async fn checks(proxy: &Vestibule, result: &str) -> f64 {
    proxy.metric("upstream_health_checks_total", &format!("result=\"{result}\"")).await
}

async fn wait_for_checks(proxy: &Vestibule, result: &str, more: f64) {
    let before = checks(proxy, result).await;
    within("checks", async {
        while checks(proxy, result).await < before + more {
            tokio::time::sleep(Duration::from_millis(5)).await; // numbers are for asking, not for waiting
        }
    })
    .await;
}

#[tokio::test]
async fn busy_is_not_dead() {
    let (instance, peak) = stub(10).await;
    let proxy = behind_ten_slots(instance).await;
    wait_for_checks(&proxy, "ok", 1.0).await;
    let streams = ten_streams(&proxy, json!({"tokens": 100_000, "tps": 5, "ttft_ms": 0})).await;
    wait_for_checks(&proxy, "busy", 10.0).await;
    assert_eq!(proxy.metric("upstream_instance_condition", "condition=\"up\"").await, 1.0);
    drop(streams);
    wait_for_checks(&proxy, "ok", 3.0).await;
    assert_eq!((checks(&proxy, "failed").await, peak()), (0.0, 10));
}

#[tokio::test]
async fn a_check_is_never_one_connection_too_many() {
    // It would serve more, and tell.
    let (instance, peak) = stub(64).await;
    let proxy = behind_ten_slots(instance).await;
    for _ in 0..3 {
        let knobs = json!({"tokens": 2, "tps": 1000, "ttft_ms": 0, "silence_ms": 1000});
        for (mut client, mut response) in ten_streams(&proxy, knobs).await {
            client.finish(&mut response).await.unwrap();
        }
        // Ten connections lie idle now; one of them makes room.
        wait_for_checks(&proxy, "ok", 3.0).await;
    }
    assert_eq!((checks(&proxy, "failed").await, peak()), (0.0, 10));
}

#[tokio::test]
async fn panic_is_loud_when_it_begins_and_when_it_is_over() {
    let status = Arc::new(AtomicU16::new(500));
    let answer = status.clone();
    let upstream = Upstream::start(move |request| match request.target.as_str() {
        "/health" => Reply::text(answer.load(Relaxed), ""),
        _ => Reply::text(200, "served"),
    })
    .await;
    let config = Config::to(&[upstream.address()]);
    let config = config.upstream(&format!("panic_below = 50\n[upstream.health]\n{OFTEN}"));
    let program = Program::start(config).await;
    let said = |text: &'static str| {
        program.process.wait_for_line(text, move |line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["message"].as_str()?.contains(text).then_some(line)
        })
    };
    let line = said("panic: too few").await;
    assert_eq!((&line["level"], &line["healthy"], &line["ready"]), (&json!("ERROR"), &json!(0), &json!(1)));
    assert_eq!(client::get(program.address, "/").await.text(), "served");
    assert_eq!(metrics::read(program.admin, "upstream_panic", "").await, 1.0);
    status.store(200, Relaxed);
    said("the panic is over").await;
    assert_eq!(metrics::read(program.admin, "upstream_panic", "").await, 0.0);
}
