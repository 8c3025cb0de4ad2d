//! The command that people start it with.

use std::net::TcpListener;
use std::process::Command;

use crate::support::client::get;
use crate::support::process::Process;

fn demo(port: u16) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    Process::start(command.args(["demo", "--port", &port.to_string()]))
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_out() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut process = demo(port);
    assert_eq!(process.exit().await.code(), Some(1));
    let complaint = format!(
        "vestibule: port {port} is in use by another program; choose another with --port (0 takes any free one)"
    );
    process.wait_for_line("complaint", |line| (line == complaint).then_some(())).await;
    assert_eq!(process.stdout(), Vec::<String>::new());
}

#[tokio::test]
async fn it_says_where_it_is_and_ends_well_with_ctrl_c() {
    let mut process = demo(0);
    let url = |line: &str| Some(line.split_once("http://")?.1.split_once("/ ")?.0.parse().unwrap());
    let address = process.wait_for_line("address", url).await;
    assert!(get(address, "/").await.text().starts_with("<!doctype html>"));
    process.signal("INT");
    assert_eq!(process.exit().await.code(), Some(0));
}

#[tokio::test]
async fn two_run_side_by_side() {
    let (mut one, mut other) = (demo(0), demo(0));
    for process in [&mut one, &mut other] {
        process.wait_for_line("metrics", |line| line.contains("/metrics").then_some(())).await;
        process.signal("INT");
    }
    assert_eq!((one.exit().await.code(), other.exit().await.code()), (Some(0), Some(0)));
}
