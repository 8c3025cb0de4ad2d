//! Slots are exact over all workers: no instance ever has more requests, nor connections, than it may; others wait,
//! and are told when that is in vain.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use super::{long, report, scaled};
use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::stub::{Browser, Stub};
use crate::support::vestibule::Program;

const CLIENTS: usize = 200;
const SLOTS: u64 = 10;

/// Four instances that would serve everybody at once, with service times as measured on Dify.
async fn stubs(scale: &str) -> Vec<Stub> {
    let mut stubs = Vec::new();
    for _ in 0..4 {
        stubs.push(
            Stub::start(&["--latency-scale", scale, "--slots", "4096", "--keep-alive-ms", "60000"]).await,
        );
    }
    stubs
}

async fn in_front_of(stubs: &[Stub], limits: &str) -> Program {
    let addresses: Vec<_> = stubs.iter().map(|stub| stub.address).collect();
    Program::start(Config::to(&addresses).workers(2).upstream(limits)).await
}

/// Asks for parameters, and every tenth time for a stream; returns how many answers were good.
async fn ask(address: std::net::SocketAddr, number: usize, rounds: usize) -> usize {
    let mut browser = Browser::open(address).await;
    let mut good = 0;
    for round in 0..rounds {
        let mut response = match (number + round).is_multiple_of(10) {
            true => browser.chat(20, 40).await,
            false => browser.begin("GET", "/v1/parameters", None).await,
        };
        browser.finish(&mut response).await.unwrap();
        good += usize::from(response.status == 200);
    }
    good
}

#[tokio::test]
async fn no_instance_ever_has_more_than_its_slots_and_everybody_is_served() {
    let stubs = stubs("1").await;
    let limits = format!("max_requests = {SLOTS}\nqueue = {{ length = {CLIENTS}, timeout = \"30s\" }}");
    let program = in_front_of(&stubs, &limits).await;
    let (rounds, begun) = (scaled(10, 100), Instant::now());
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(ask(program.address, number, rounds));
    }
    let good: usize = clients.join_all().await.into_iter().sum();
    let took = begun.elapsed();
    let mut peaks = Vec::new();
    for stub in &stubs {
        peaks.push(stub.stats().await["connections"]["peak"].as_u64().unwrap());
    }
    let waited = metrics::read(program.admin, "upstream_queue_wait_seconds_count", "").await;
    let seconds = metrics::read(program.admin, "upstream_queue_wait_seconds_sum", "").await;
    report(
        "slots",
        format!(
            "{CLIENTS} clients, 4 instances of {SLOTS}: {good} answers in {took:.1?}, peak connections {peaks:?}, \
             {waited} waited {:.0} ms on average",
            seconds / waited * 1000.0
        ),
    );
    assert_eq!(good, CLIENTS * rounds);
    assert!(peaks.iter().all(|peak| *peak <= SLOTS), "{peaks:?}");
    assert!(peaks.contains(&SLOTS) && waited > 0.0, "the load does not test anything");
    assert_eq!(metrics::read(program.admin, "upstream_queue_refusals_total", "").await, 0.0);
    assert_eq!(metrics::read(program.admin, "upstream_queue_length", "").await, 0.0);
}

fn assert_refused(response: &Response, limit: &str) {
    let problem: Value = response.json();
    assert_eq!((response.status, &problem["limit"]), (503, &limit.into()), "{problem}");
    assert_eq!(response.headers.get("retry-after"), Some("1"));
    assert_eq!(response.headers.get("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn who_finds_the_queue_full_or_waits_too_long_is_told_which_limit_that_was() {
    let stubs = stubs("0").await;
    let limits = format!("max_requests = {SLOTS}\nqueue = {{ length = 5, timeout = \"5s\" }}");
    let program = in_front_of(&stubs, &limits).await;
    let mut streams = Vec::new();
    for _ in 0..4 * SLOTS {
        let mut browser = Browser::open(program.address).await;
        let response = browser.chat(1000, 1).await;
        assert_eq!(response.status, 200);
        streams.push((browser, response));
    }
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let mut browser = Browser::open(program.address).await;
        waiting.spawn(async move { browser.ask("GET", "/v1/parameters", None).await });
    }
    metrics::wait_for(program.admin, "upstream_queue_length", "", 5.0).await;
    let begun = Instant::now();
    for _ in 0..10 {
        let refused = Browser::open(program.address).await.ask("GET", "/v1/parameters", None).await;
        assert_refused(&refused, "upstream.queue.length");
    }
    let refused_in = begun.elapsed();
    for refused in waiting.join_all().await {
        assert_refused(&refused, "upstream.queue.timeout");
    }
    report("a full queue", format!("10 refused in {refused_in:.1?}, 5 that waited told after 5 s"));
    assert_eq!(metrics::read(program.admin, "upstream_queue_refusals_total", "full").await, 10.0);
    assert_eq!(metrics::read(program.admin, "upstream_queue_refusals_total", "timeout").await, 5.0);
    drop(streams);
    metrics::wait_for(program.admin, "upstream_requests_in_flight", "", 0.0).await;
    let served = Browser::open(program.address).await.ask("GET", "/v1/parameters", None).await;
    assert_eq!(served.status, 200);
}

/// Requests per second that so many clients get.
async fn throughput(program: &Program, clients: usize) -> f64 {
    let (begun, time) = (Instant::now(), Duration::from_secs(10));
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let address = program.address;
        asking.spawn(async move {
            let (mut browser, mut count) = (Browser::open(address).await, 0);
            while begun.elapsed() < time {
                let response = browser.ask("GET", "/v1/parameters", None).await;
                assert_eq!(response.status, 200);
                count += 1;
            }
            count
        });
    }
    let answers: u32 = asking.join_all().await.into_iter().sum();
    f64::from(answers) / begun.elapsed().as_secs_f64()
}

#[tokio::test]
async fn slots_cost_next_to_nothing() {
    if !long() {
        return;
    }
    let stubs = stubs("0").await;
    let without = in_front_of(&stubs, "").await;
    let limits = format!("max_requests = {SLOTS}\nqueue = {{ length = {CLIENTS}, timeout = \"30s\" }}");
    let with = in_front_of(&stubs, &limits).await;
    let clients = 4 * SLOTS as usize;
    let (mut off, mut on, mut queueing) = (0.0, 0.0, 0.0);
    for _ in 0..3 {
        off += throughput(&without, clients).await / 3.0;
        on += throughput(&with, clients).await / 3.0;
        queueing += throughput(&with, CLIENTS).await / 3.0;
    }
    report(
        "throughput at saturation",
        format!(
            "{clients} clients without slots {off:.0}/s, with {on:.0}/s ({:+.1} %), {CLIENTS} clients in front of \
             {clients} slots {queueing:.0}/s ({:+.1} %)",
            (on / off - 1.0) * 100.0,
            (queueing / off - 1.0) * 100.0
        ),
    );
    assert!(on > 0.9 * off, "slots cost {:.0} %", (1.0 - on / off) * 100.0);
}
