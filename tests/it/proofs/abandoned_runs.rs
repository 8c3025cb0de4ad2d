//! Clients leave long runs on one instance, which works on: nobody else is sent there to wait behind them, and it is not
//! taken for dead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::{Spread, report, scaled};
use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::service::{Service, send};
use crate::support::vestibule::Program;
use crate::support::{DEADLINE, within};

const SLOTS: usize = 10;
const RUNS: usize = 20;

/// Serves [`SLOTS`] requests at a time, checks included, and lets others wait. A run takes `time`, whoever has left, and
/// is counted.
fn instance(name: &'static str, time: Duration, begun: &watch::Sender<usize>) -> Service {
    let begun = begun.clone();
    let slots = Arc::new(Semaphore::new(SLOTS));
    Service::start(async move |request, wire| {
        let slot = slots.clone().acquire_owned().await.map_err(std::io::Error::other)?;
        if request.start_line.starts_with("POST") {
            begun.send_modify(|count| *count += 1);
            tokio::time::sleep(time).await; // it is the instance that takes its time
        }
        let sent = send(wire, 200, &[], name).await;
        drop(slot);
        sent
    })
}

#[tokio::test]
async fn twenty_abandoned_runs_disturb_neither_other_requests_nor_checks() {
    let time = Duration::from_millis(scaled(3_000, 12_000));
    let begun_runs = watch::Sender::new(0);
    let instances = [instance("a", time, &begun_runs), instance("b", time, &begun_runs)];
    let addresses = instances.each_ref().map(Service::address);
    let upstream = format!(
        "max_requests = {SLOTS}\nqueue = {{ length = 128, timeout = \"1m\" }}\n\
         [upstream.health]\ninterval = \"100ms\"\ntimeout = \"5s\"\nfall = 2"
    );
    let config = Config::to(&addresses).upstream(&upstream).with("[session]\nmode = \"sticky\"");
    let program = Program::start(config).await;
    let condition = "upstream_instance_condition";
    metrics::wait_for(program.admin, condition, "condition=\"up\"", 2.0).await;
    let first = client::get(program.address, "/").await;
    let tie = first.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let (begun, mut runs) = (Instant::now(), Vec::new());
    for _ in 0..RUNS {
        let mut run = Client::connect(program.address).await;
        run.send_request("POST", "/run", &[("Cookie", &tie)], b"").await;
        runs.push(run);
    }
    metrics::wait_for(program.admin, "upstream_queue_length", "", (RUNS - SLOTS) as f64).await;
    within("the runs", begun_runs.subscribe().wait_for(|count| *count == SLOTS)).await.unwrap();
    drop(runs);
    metrics::wait_for(program.admin, "http_requests_total", "status=\"499\"", RUNS as f64).await;
    let mut asking = JoinSet::new();
    for _ in 0..80 {
        let address = program.address;
        asking.spawn(async move {
            let begun = Instant::now();
            let answer = client::get(address, "/").await;
            (answer.status, answer.text().to_owned(), begun.elapsed())
        });
    }
    let answers = asking.join_all().await;
    let all_asked = begun.elapsed();
    let times = Spread::of(answers.iter().map(|(_, _, time)| *time));
    let elsewhere = answers.iter().filter(|(status, name, _)| *status == 200 && name != first.text()).count();
    let checks = async |result: &str| {
        metrics::read(program.admin, "upstream_health_checks_total", &format!("result=\"{result}\"")).await
    };
    report(
        "abandoned runs",
        format!(
            "{RUNS} runs of {time:?} left; of 80 requests {elsewhere} served by the other instance: {times}; checks: {} \
             busy, {} failed",
            checks("busy").await,
            checks("failed").await
        ),
    );
    // On a machine so slow that the runs had ended meanwhile, the instance may have served again.
    assert!(answers.iter().all(|(status, _, _)| *status == 200) && (elsewhere == 80 || all_asked > time));
    let all_over = async {
        while metrics::read(program.admin, "upstream_requests_in_flight", "").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await; // numbers are for asking, not for waiting
        }
    };
    tokio::time::timeout(time + DEADLINE, all_over).await.unwrap();
    assert_eq!(metrics::read(program.admin, condition, "condition=\"up\"").await, 2.0);
    assert_eq!(checks("failed").await, 0.0);
}
