//! All instances are restarted one after the other under load, each after a drain: nothing fails, nothing is cut, and
//! sessions that live in an instance move only when it is their instance's turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

use super::{report, scaled};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::stub::{Browser, Stub, instance_of};
use crate::support::vestibule::{Program, command};
use crate::support::within;

const TOKEN: &str = "operator-token-0123456789";
/// What an instance with sessions of its own gets to end them, which people at work never do.
const DEADLINE: &str = "6s";

fn clients() -> usize {
    scaled(40, 400)
}

/// What clients met.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    requests: AtomicUsize,
    streams: AtomicUsize,
    cut: AtomicUsize,
    failed: AtomicUsize,
    /// Sessions that had to log in again, by the round in which that was found.
    moved: [AtomicUsize; 4],
    /// Of these, those whose instance was not the one that was drained.
    astray: AtomicUsize,
    /// How many instances are being, or have been, drained.
    rounds: AtomicUsize,
}

impl Load {
    fn fail(&self, what: &str, status: u16) {
        self.failed.fetch_add(1, SeqCst);
        eprintln!("{what}: {status}");
    }
}

/// Works until the load is over: profiles, and now and then a stream of a second.
async fn work(
    program_address: std::net::SocketAddr,
    number: usize,
    order: Arc<Vec<String>>,
    load: Arc<Load>,
) {
    let mut browser = Browser::open(program_address).await;
    let mut home = instance_of(&login(&mut browser, number, &load).await);
    let mut turn = number;
    while !load.over.load(SeqCst) {
        turn += 1;
        if turn.is_multiple_of(10) {
            stream(&mut browser, &load).await;
        }
        load.requests.fetch_add(1, SeqCst);
        let response = browser.profile().await;
        match response.status {
            200 => {}
            401 => {
                // The instance that knew the session was taken out.
                let round = order.iter().position(|instance| *instance == home).unwrap();
                let begun = load.rounds.load(SeqCst);
                if round + 1 != begun {
                    load.astray.fetch_add(1, SeqCst);
                }
                load.moved[begun.saturating_sub(1)].fetch_add(1, SeqCst);
                home = instance_of(&login(&mut browser, number, &load).await);
            }
            status => load.fail("profile", status),
        }
        sleep(Duration::from_millis(5 + turn as u64 % 20)).await; // people think
    }
}

async fn login(browser: &mut Browser, number: usize, load: &Load) -> crate::support::client::Response {
    load.requests.fetch_add(1, SeqCst);
    let response = browser.login(number + 1).await;
    if response.status != 200 {
        load.fail("login", response.status);
    }
    response
}

async fn stream(browser: &mut Browser, load: &Load) {
    load.streams.fetch_add(1, SeqCst);
    let mut response = browser.chat(20, 20).await;
    if response.status != 200 {
        return load.fail("stream", response.status);
    }
    let whole = browser.finish(&mut response).await.is_ok() && response.text().contains("message_end");
    if !whole {
        load.cut.fetch_add(1, SeqCst);
    }
}

async fn upstreams(program: &Program, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = command();
    command.arg("upstreams").args(arguments).args(["--admin", &program.admin.to_string()]);
    command.env("VESTIBULE_ADMIN_TOKEN", TOKEN);
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Drains one instance as an operator's script does, restarts it, and lets it serve again.
async fn replace(program: &Program, stub: &mut Stub, deadline: &[&str]) {
    let address = stub.address.to_string();
    let drain = [&["drain", &address, "--wait"], deadline].concat();
    let (code, told) = upstreams(program, &drain).await;
    assert_eq!(code, Some(0), "{told}");
    stub.restart().await;
    let label = format!("instance=\"{address}\"");
    metrics::wait_for(program.admin, "upstream_instance_up", &label, 1.0).await;
    let (code, told) = upstreams(program, &["ready", &address]).await;
    assert_eq!(code, Some(0), "{told}");
}

struct Outcome {
    load: Arc<Load>,
    /// Sessions on each instance when its round began.
    lived: Vec<usize>,
}

async fn roll(mode: &str, stub_options: &[&str], deadline: &[&str]) -> Outcome {
    let mut stubs = Vec::new();
    for name in ["a", "b", "c", "d"] {
        stubs.push(
            Stub::start(&[&["--instance", name, "--keep-alive-ms", "5000"], stub_options].concat()).await,
        );
    }
    let addresses: Vec<_> = stubs.iter().map(|stub| stub.address).collect();
    let config = Config::to(&addresses)
        .workers(2)
        .token(TOKEN)
        .upstream("session_control = true\nhealth = { path = \"/health\", interval = \"100ms\", rise = 1 }")
        .with(&format!("[session]\nmode = \"{mode}\""));
    let program = Program::start(config).await;
    metrics::wait_for(program.admin, "upstream_instance_up", "", 4.0).await; // else all go to the first that is good
    let load = Arc::new(Load::default());
    let order = Arc::new(["a", "b", "c", "d"].map(str::to_owned).to_vec());
    let mut clients_at_work = JoinSet::new();
    for number in 0..clients() {
        clients_at_work.spawn(work(program.address, number, order.clone(), load.clone()));
    }
    within("everybody at work", async {
        while load.requests.load(SeqCst) < 4 * clients() {
            sleep(Duration::from_millis(10)).await; // numbers are for asking, not for waiting
        }
    })
    .await;
    let mut lived = Vec::new();
    for (round, stub) in stubs.iter_mut().enumerate() {
        let label = format!("instance=\"{}\"", stub.address);
        let lives = stub.stats().await["sessions_active"].as_u64().unwrap() as usize;
        let told = metrics::read(program.admin, "upstream_sessions", &label).await as usize;
        assert!(lives.abs_diff(told) <= 2 + lives / 20, "{told} sessions told of, {lives} live there");
        lived.push(lives);
        load.rounds.store(round + 1, SeqCst);
        let begun = Instant::now();
        replace(&program, stub, deadline).await;
        report(&format!("{mode}: an instance replaced after"), format!("{:.1?}", begun.elapsed()));
        sleep(Duration::from_millis(scaled(500, 5_000))).await; // the load goes on between rounds
    }
    load.over.store(true, SeqCst);
    clients_at_work.join_all().await;
    let count = |counter: &AtomicUsize| counter.load(SeqCst);
    report(
        &format!("{mode}: four instances restarted"),
        format!(
            "{} clients, {} requests, {} streams; {} failed, {} cut; sessions moved by round {:?}, lived there {lived:?}",
            clients(),
            count(&load.requests),
            count(&load.streams),
            count(&load.failed),
            count(&load.cut),
            load.moved.each_ref().map(count),
        ),
    );
    assert_eq!((count(&load.failed), count(&load.cut), count(&load.astray)), (0, 0, 0));
    assert!(count(&load.streams) > clients() / 2);
    assert_eq!(metrics::read(program.admin, "upstream_streams_closed_total", "").await, 0.0);
    Outcome { load, lived }
}

#[tokio::test]
async fn sessions_in_instances_move_when_it_is_their_instances_turn_and_nothing_else_happens() {
    let Outcome { load, lived } =
        roll("sticky", &["--session-store", "memory"], &["--deadline", DEADLINE]).await;
    let moved = load.moved.each_ref().map(|count| count.load(SeqCst));
    assert_eq!(lived.iter().zip(moved).filter(|(lived, _)| **lived == 0).count(), 0, "{lived:?}");
    for (lived, moved) in lived.into_iter().zip(moved) {
        assert_eq!(moved, lived, "those who lived on the instance, and nobody else");
    }
}

#[tokio::test]
async fn shared_sessions_do_not_even_notice() {
    let Outcome { load, .. } = roll("shared", &["--session-store", "none"], &[]).await;
    assert_eq!(load.moved.each_ref().map(|count| count.load(SeqCst)), [0; 4]);
}
