//! A rolling restart of instances whose sockets are bound at once and that answer only later costs nobody an answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{Spread, report, scaled};
use crate::support::config::Config;
use crate::support::service::{Service, send};
use crate::support::vestibule::{Program, command};
use crate::support::{client, metrics};

const TOKEN: &str = "operator-token-0123456789";
const CLIENTS: usize = 4;

/// An instance that can be restarted: it accepts connections all the time, and answers what it was asked meanwhile when
/// it has started.
struct Late {
    service: Service,
    starting: Arc<AtomicBool>,
    /// Requests, not checks, that were sent there before it had started.
    too_early: Arc<AtomicUsize>,
}

impl Late {
    fn start() -> Self {
        let starting = Arc::new(AtomicBool::new(false));
        let too_early = Arc::new(AtomicUsize::new(0));
        let (is_starting, counter) = (starting.clone(), too_early.clone());
        let service = Service::start(async move |request, wire| {
            if is_starting.load(SeqCst) && !request.start_line.contains("/health") {
                counter.fetch_add(1, SeqCst);
            }
            while is_starting.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await; // it is the instance that takes its time
            }
            send(wire, 200, &[], "served").await
        });
        Self { service, starting, too_early }
    }

    /// Takes `time` to start, and the operator goes on at once.
    fn restart(&self, time: Duration) {
        self.starting.store(true, SeqCst);
        let starting = self.starting.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            starting.store(false, SeqCst);
        });
    }
}

/// Runs `vestibule upstreams` with these arguments, and waits until it is done.
async fn order(program: &Program, arguments: &[&str], address: SocketAddr) {
    let mut command = command();
    let admin = program.admin.to_string();
    command.arg("upstreams").args(arguments).args([&address.to_string(), "--admin", &admin]);
    command.env("VESTIBULE_ADMIN_TOKEN", TOKEN);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[tokio::test]
async fn no_request_is_lost_while_instances_that_answer_late_are_restarted_in_turn() {
    let instances = [Late::start(), Late::start()];
    let addresses = instances.each_ref().map(|instance| instance.service.address());
    let (starting, pause) = scaled((1_000, 10), (12_000, 1_000));
    let upstream = format!(
        "max_requests = 2\nqueue = {{ length = 64, timeout = \"{}\" }}\n\
         [upstream.health]\ninterval = \"{}ms\"\ntimeout = \"{}\"",
        scaled("1m", "5s"),
        scaled(50, 1_000),
        scaled("10s", "1s")
    );
    let config = Config::to(&addresses).upstream(&upstream).workers(2);
    let program = Program::start(config.token(TOKEN)).await;
    metrics::wait_for(program.admin, "upstream_instance_up", "", 2.0).await;
    let (over, mut clients) = (Arc::new(AtomicBool::new(false)), JoinSet::new());
    for _ in 0..CLIENTS {
        let (over, address) = (over.clone(), program.address);
        clients.spawn(async move {
            let (mut times, mut failed) = (Vec::new(), 0);
            while !over.load(SeqCst) || times.len() < scaled(10, 75) {
                let begun = Instant::now();
                failed += usize::from(client::get(address, "/").await.status != 200);
                times.push(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(pause)).await; // the load, not a wait for anything
            }
            (times, failed)
        });
    }
    for (instance, address) in instances.iter().zip(addresses) {
        order(&program, &["drain", "--deadline", "10m", "--wait"], address).await;
        instance.restart(Duration::from_millis(starting));
        order(&program, &["ready", "--wait"], address).await;
        assert!(!instance.starting.load(SeqCst), "it was said to serve before it did");
    }
    over.store(true, SeqCst);
    let (times, failed): (Vec<_>, Vec<_>) = clients.join_all().await.into_iter().unzip();
    let (times, failed) = (times.concat(), failed.into_iter().sum::<usize>());
    report(
        &format!("two instances restarted that answer after {starting} ms"),
        format!("{failed} of {} failed; {}", times.len(), Spread::of(times.iter().copied())),
    );
    let too_early: usize = instances.iter().map(|instance| instance.too_early.load(SeqCst)).sum();
    assert_eq!((failed, too_early), (0, 0));
}
