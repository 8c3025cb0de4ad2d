//! The access log: a file that is moved away is let go of, and lines stand in the order of their times.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::service::Service;
use crate::support::vestibule::{Program, command, write};
use crate::support::within;

async fn start(directory: &TempDir) -> (Service, Program) {
    let instance = Service::telling(|_| "told".to_owned());
    let path = directory.path().join("access.log");
    let log = format!("[access_log]\noutput = \"file:{}\"", path.display());
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(&log)).await;
    (instance, program)
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn has(path: &Path, target: &str) -> bool {
    lines(path).iter().any(|line| line["path"] == target)
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_written_no_longer_after_a_signal() {
    for signal in ["HUP", "USR1"] {
        let directory = TempDir::new().unwrap();
        let (_instance, program) = start(&directory).await;
        let (log, moved) = (directory.path().join("access.log"), directory.path().join("access.log.1"));
        client::get(program.address, "/before").await;
        within("the first line", async {
            while !has(&log, "/before") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        std::fs::rename(&log, &moved).unwrap();
        program.process.signal(signal);
        within("a new file", async {
            while !log.exists() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        client::get(program.address, "/after").await;
        within("the second line", async {
            while !has(&log, "/after") {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(has(&moved, "/before") && !has(&moved, "/after") && !has(&log, "/before"), "{signal}");
    }
}

#[tokio::test]
async fn lines_of_all_workers_stand_in_the_order_of_their_times() {
    let directory = TempDir::new().unwrap();
    let (_instance, program) = start(&directory).await;
    let (address, log) = (program.address, directory.path().join("access.log"));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..250 {
                assert_eq!(client.request("GET", "/", &[], b"").await.status, 200);
            }
        });
    }
    clients.join_all().await;
    within("all lines", async {
        while lines(&log).len() < 2_000 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await; // reading it all takes its time
        }
    })
    .await;
    let times: Vec<String> =
        lines(&log).iter().map(|line| line["time"].as_str().unwrap().to_owned()).collect();
    assert!(times.is_sorted());
}

#[test]
fn a_level_that_does_not_exist_is_refused_and_warning_is_one() {
    let config = write(&Config::to(&["127.0.0.1:1".parse().unwrap()]).toml());
    let run = |level: &str| {
        let mut command = command();
        command.args(["--log-level", level, "check", "-c"]).arg(config.path());
        command.output().unwrap()
    };
    let refused = run("inof");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("\"inof\" is not a level; write error, warn, info, debug, trace or off"), "{said}");
    assert_eq!(run("warning").status.code(), Some(0));
}
