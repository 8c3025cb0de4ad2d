//! Stopping: running requests end, new ones go elsewhere, and the exit code tells whether that worked.

use std::time::Duration;

use vestibule::app::Outcome;

use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::process::Process;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, Vestibule, command, write};
use crate::support::{NEVER, within};

async fn start(upstream: &Upstream, shutdown: &str) -> Program {
    let shutdown = format!("[shutdown]\n{shutdown}");
    Program::start(Config::to(&[upstream.address()]).with(&shutdown)).await
}

/// Starts a request whose answer waits for `signal` after its first chunk.
async fn streaming(signal: &Signal) -> Upstream {
    Upstream::answering(Reply::chunked(200, &[]).chunk("first").wait(signal).chunk("last").end()).await
}

#[tokio::test]
async fn an_idle_proxy_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let upstream = Upstream::answering(Reply::text(200, "")).await;
        let mut program = start(&upstream, &format!("deadline = \"{NEVER}\"")).await;
        let mut idle = Client::connect(program.address).await;
        assert_eq!(idle.request("GET", "/", &[], b"").await.status, 200);
        let silent = Client::connect(program.address).await;
        program.process.signal(signal);
        idle.assert_closed().await;
        assert_eq!(program.process.exit().await.code(), Some(0), "{:?}", program.process.stderr());
        drop(silent);
    }
}

#[tokio::test]
async fn a_running_request_ends_in_peace() {
    let signal = Signal::new();
    let upstream = streaming(&signal).await;
    let mut program = start(&upstream, "").await;
    let mut client = Client::connect(program.address).await;
    client.send_request("GET", "/", &[], b"").await;
    let mut response = client.start_response().await;
    assert_eq!(client.next_piece(&mut response).await.unwrap(), Some(b"first".to_vec()));

    program.process.signal("TERM");
    refused(&program).await;
    signal.fire();
    client.finish(&mut response).await.unwrap();
    assert_eq!(response.text(), "last");
    client.assert_closed().await;
    assert_eq!(program.process.exit().await.code(), Some(0), "{:?}", program.process.stderr());
}

/// Waits until new clients are refused.
async fn refused(program: &Program) {
    within("new clients to be refused", async {
        while tokio::net::TcpStream::connect(program.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await; // it is for asking, not for waiting
        }
    })
    .await;
}

#[tokio::test]
async fn in_process_the_outcome_tells_how_many_were_cut() {
    let signal = Signal::new();
    let upstream = streaming(&signal).await;
    for (deadline, cut) in [(NEVER, 0), ("100ms", 1)] {
        let shutdown = format!("[shutdown]\ndeadline = \"{deadline}\"");
        let proxy = Vestibule::start(Config::to(&[upstream.address()]).workers(2).with(&shutdown)).await;
        let mut client = proxy.connect().await;
        client.send_request("GET", "/", &[], b"").await;
        let mut response = client.start_response().await;
        if cut == 0 {
            signal.fire();
            client.finish(&mut response).await.unwrap();
        }
        assert_eq!(proxy.stop().await, Outcome { cut });
    }
}

#[tokio::test]
async fn the_deadline_cuts_and_says_so() {
    let signal = Signal::new();
    let upstream = streaming(&signal).await;
    let mut program = start(&upstream, "deadline = \"300ms\"").await;
    let mut client = Client::connect(program.address).await;
    client.send_request("GET", "/", &[], b"").await;
    let mut response = client.start_response().await;
    program.process.signal("TERM");
    assert_eq!(program.process.exit().await.code(), Some(3), "{:?}", program.process.stderr());
    assert!(client.finish(&mut response).await.is_err(), "cut answers do not look complete");
}

#[tokio::test]
async fn a_second_signal_ends_it_now() {
    let signal = Signal::new();
    let upstream = streaming(&signal).await;
    let mut program = start(&upstream, "").await;
    let mut client = Client::connect(program.address).await;
    client.send_request("GET", "/", &[], b"").await;
    client.start_response().await;
    program.process.signal("TERM");
    refused(&program).await;
    program.process.signal("TERM");
    assert_eq!(program.process.exit().await.code(), Some(3), "{:?}", program.process.stderr());
}

#[tokio::test]
async fn during_the_grace_it_serves_while_readyz_warns() {
    let upstream = Upstream::answering(Reply::text(200, "served")).await;
    let program = start(&upstream, &format!("accept_grace = \"{NEVER}\"")).await;
    assert_eq!(client::get(program.admin, "/livez").await.status, 200);
    program.process.signal("TERM");
    program.wait_for_readiness(503).await;
    assert_eq!(client::get(program.address, "/").await.text(), "served");
    assert_eq!(client::get(program.admin, "/livez").await.status, 200);
}

#[tokio::test]
async fn after_the_grace_it_ends() {
    let upstream = Upstream::answering(Reply::text(200, "served")).await;
    let mut program = start(&upstream, "accept_grace = \"500ms\"").await;
    program.process.signal("TERM");
    refused(&program).await;
    assert_eq!(program.process.exit().await.code(), Some(0), "{:?}", program.process.stderr());
}

async fn exit_code(arguments: &[&str]) -> Option<i32> {
    Process::start(command().args(arguments)).exit().await.code()
}

#[tokio::test]
async fn exit_codes_tell_a_bad_configuration_from_wrong_usage() {
    let good = write(&Config::to(&["127.0.0.1:1".parse().unwrap()]).toml());
    let bad = write("version = 1\nunknown = true\n");
    let (good, bad) = (good.path().to_str().unwrap(), bad.path().to_str().unwrap());
    assert_eq!(exit_code(&["check", "-c", good]).await, Some(0));
    assert_eq!(exit_code(&["check", "-c", bad]).await, Some(1));
    assert_eq!(exit_code(&["run", "-c", bad]).await, Some(1));
    assert_eq!(exit_code(&["run", "-c", "/nonexistent/vestibule.toml"]).await, Some(1));
    assert_eq!(exit_code(&["run", "--no-such-option"]).await, Some(2));
    assert_eq!(exit_code(&["no-such-command"]).await, Some(2));
    assert_eq!(exit_code(&["--help"]).await, Some(0));
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_failure_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = Config::to(&["127.0.0.1:1".parse().unwrap()]).toml().replacen("127.0.0.1:0", &address, 1);
    let file = write(&config);
    let mut process = Process::start(command().args(["run", "-c"]).arg(file.path()));
    assert_eq!(process.exit().await.code(), Some(1));
    let output = [process.stdout(), process.stderr()].concat().join("\n");
    assert!(output.contains(&address), "{output}");
}
