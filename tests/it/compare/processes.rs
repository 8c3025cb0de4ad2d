//! A comparison leaves no process behind, however it ends.

use std::process::Stdio;

use super::{Comparing, processes_of};
use crate::support::redis_sentinel::until;
use crate::support::vestibule::command;

/// Waits until proxy, instances and their guards run.
async fn under_way(comparing: &Comparing) {
    until("a stage", async || processes_of(comparing.directory.path()).len() > 6).await;
    comparing.process.wait_for_line("a run", |line| line.starts_with("round 1/").then_some(())).await;
}

#[tokio::test]
async fn nothing_is_left_when_it_is_killed() {
    let mut comparing = Comparing::start(&["--modes", "shared", "--duration", "60s"]);
    under_way(&comparing).await;
    comparing.process.signal("KILL");
    comparing.process.end().await;
    until("an end of all processes", async || processes_of(comparing.directory.path()).is_empty()).await;
}

/// The comparison may be killed just when a guard has started its program.
#[tokio::test]
async fn a_guard_that_nobody_listens_to_leaves_no_program_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let program = ["guard", "--", "sh", "-c", "sleep 1000 & wait"];
    let mut command = command();
    command.args(program).arg(directory.path()).stdin(Stdio::piped()).stdout(writer);
    assert_eq!(command.spawn().unwrap().wait().unwrap().code(), Some(1));
    until("an end of all processes", async || processes_of(directory.path()).is_empty()).await;
}

#[tokio::test]
async fn nothing_is_left_when_it_is_interrupted_not_even_files() {
    let mut comparing = Comparing::start(&["--modes", "sticky", "--duration", "60s"]);
    under_way(&comparing).await;
    comparing.process.signal("INT");
    assert_eq!(comparing.process.end().await.code(), Some(1));
    assert_eq!(processes_of(comparing.directory.path()), [0; 0]);
    let left: Vec<_> = std::fs::read_dir(comparing.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn nothing_is_left_at_the_end() {
    let compared =
        Comparing::start(&["--modes", "local", "--events", "none", "--rounds", "1", "--duration", "500ms"]);
    let compared = compared.end().await;
    assert_eq!(compared.code, Some(0), "{}", compared.stderr);
    assert_eq!(processes_of(compared.directory.path()), [0; 0]);
}
