//! New binaries take over, one after the other, and lose nobody.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::steady::{Application, Crowd};
use super::{report, scaled};
use crate::support::process::memory;
use crate::support::vestibule::Program;
use crate::support::within;

#[tokio::test]
async fn ten_upgrades_fail_no_request_and_cut_no_stream() {
    let (upgrades, pause) = scaled((2, Duration::from_millis(500)), (10, Duration::from_secs(5)));
    let application = Application::start(2).await;
    let mut program = Program::start(application.config(0..2).with("[timeouts]\nkeep_alive = \"3s\"")).await;
    let mut crowd = Crowd::at(program.address);
    crowd.open_streams(scaled(20, 200)).await;
    crowd.open_sockets(scaled(5, 50)).await;
    crowd.ask(scaled(100, 500));
    let (mut processes, mut successors, mut took) = (vec![program.process.id()], Vec::new(), Vec::new());
    for upgrade in 0..upgrades {
        sleep(pause).await;
        let begun = Instant::now();
        let new = program.upgrade(processes[upgrade], upgrade).await;
        took.push(begun.elapsed());
        processes.push(new.0);
        successors.push(new);
        crowd.open_streams(2).await; // every process has some
    }
    sleep(pause).await;
    let sizes: Vec<_> = processes.iter().map(|id| memory(*id, "VmRSS") >> 10).collect();
    let noticed = crowd.leave(&application).await;
    let slowest = took.iter().max().unwrap();
    report(
        "upgrades",
        format!(
            "{upgrades}, the slowest in {slowest:.2?}: {noticed}; KiB of memory of each process: {sizes:?}"
        ),
    );
    assert_eq!((noticed.failed, noticed.cut), (0, 0));
    assert_eq!(program.process.end().await.code(), Some(0), "{:?}", program.process.stderr());
    let old = &processes[1..upgrades];
    within("the end of the processes between", async {
        while old.iter().any(|id| is_running(*id)) {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Whether the process has not ended; nobody may have asked yet how it ended.
fn is_running(id: u32) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}
