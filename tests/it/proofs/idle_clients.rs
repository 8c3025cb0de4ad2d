//! A client that says nothing costs next to nothing, and is served when it speaks again.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep};

use super::{long, report, scaled};
use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::process::Process;
use crate::support::service::Service;
use crate::support::vestibule::Program;

/// Bytes that an idle client may cost.
const ALLOWED: usize = 2048;
/// Clients that connect or ask at the same time.
const AT_ONCE: usize = 100;

#[tokio::test]
async fn idle_clients_cost_two_kibibytes_at_most_and_are_all_served_again() {
    let count = scaled(500, 10_000);
    let instance = Service::telling(|_| "served".to_owned());
    let tables = "[limits]\nconnections = 20000\n[timeouts]\nkeep_alive = \"10m\"";
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(tables)).await;
    for _ in 0..100 {
        ask(Client::connect(program.address).await).await;
    }
    let before = settled(&program.process).await;
    let clients = stream::iter(0..count).map(async |_| ask(Client::connect(program.address).await).await);
    let clients: Vec<Client> = clients.buffer_unordered(AT_ONCE).collect().await;
    let at_first = program.process.memory("VmRSS");
    let after = settled(&program.process).await;
    let each = after.saturating_sub(before) / count;
    report(
        "idle clients",
        format!("{count} clients: {before} bytes before, {at_first} at first, {after} idle: {each} each"),
    );
    if long() {
        assert!(each <= ALLOWED, "{each} bytes each");
    }
    let again: Vec<Client> = stream::iter(clients).map(ask).buffer_unordered(AT_ONCE).collect().await;
    assert_eq!(again.len(), count);
}

async fn ask(mut client: Client) -> Client {
    let response = client.request("GET", "/", &[], b"").await;
    assert_eq!((response.status, response.text()), (200, "served"));
    client
}

/// The resident memory once it has stopped falling for longer than a connection takes to fall idle.
async fn settled(process: &Process) -> usize {
    let (mut least, mut since) = (process.memory("VmRSS"), Instant::now());
    while since.elapsed() < scaled(Duration::from_millis(1200), Duration::from_secs(4)) {
        sleep(Duration::from_millis(100)).await;
        let now = process.memory("VmRSS");
        if now < least {
            (least, since) = (now, Instant::now());
        }
    }
    process.memory("VmRSS")
}
