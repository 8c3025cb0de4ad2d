//! `vestibule upstreams` against a running vestibule.

use std::net::SocketAddr;
use std::process::Command;

use super::TOKEN;
use super::command::run;
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, command};

/// An instance whose answers pause until the signal.
async fn started(signal: &Signal) -> (Upstream, Program) {
    let reply = Reply::chunked(200, &[("Content-Type", "text/event-stream")]).chunk("one").wait(signal).end();
    let instance = Upstream::answering(reply).await;
    let config = Config::to(&[instance.address()]).token(TOKEN);
    (instance, Program::start(config).await)
}

async fn stream(address: SocketAddr) -> (Client, Response) {
    let mut client = Client::connect(address).await;
    client.send_request("GET", "/", &[], b"").await;
    let mut response = client.start_response().await;
    assert_eq!(client.next_piece(&mut response).await.unwrap().unwrap(), b"one");
    (client, response)
}

fn upstreams(program: &Program, arguments: &[&str]) -> Command {
    let mut command = command();
    command.arg("upstreams").args(arguments).args(["--admin", &program.admin.to_string()]);
    command.env("VESTIBULE_ADMIN_TOKEN", TOKEN);
    command
}

#[tokio::test]
async fn instances_are_listed_and_change_as_they_are_told_to() {
    let (instance, program) = started(&Signal::new()).await;
    let address = instance.address().to_string();
    let width = address.len();
    let table = |state: &str, weight: &str, deadline: &str| {
        let head =
            format!("{:width$}  STATE  CONDITION  WEIGHT  REQUESTS  STREAMS  SESSIONS  DEADLINE", "INSTANCE");
        let row =
            format!("{address}  {state:5}  unchecked  {weight:6}  0         0        -         {deadline}");
        (Some(0), format!("UPSTREAM  {head}\napp       {row}\n"), String::new())
    };
    for (arguments, state, weight, deadline) in [
        (&["list"][..], "ready", "1", "-"),
        (&["weight", &address, "5"], "ready", "5", "-"),
        (&["drain", &address, "--upstream", "app"], "drain", "5", "-"),
        (&["drain", &address, "--deadline", "2h", "--then", "close"], "drain", "5", "2h0m0s, then close"),
        (&["down", &address], "down", "5", "-"),
        (&["ready", &address], "ready", "5", "-"),
    ] {
        assert_eq!(
            run(upstreams(&program, arguments)).await,
            table(state, weight, deadline),
            "{arguments:?}"
        );
    }
    let (_, json, _) = run(upstreams(&program, &["list", "--json"])).await;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["upstreams"][0]["instances"][0]["address"], address.as_str());
    assert_eq!(report["upstreams"][0]["balance"], "round_robin");
}

#[tokio::test]
async fn a_drain_that_waits_ends_well_when_nothing_is_left() {
    let signal = Signal::new();
    let (instance, program) = started(&signal).await;
    let (mut client, mut response) = stream(program.address).await;
    let drain = upstreams(&program, &["drain", &instance.address().to_string(), "--wait"]);
    let (drained, ()) = tokio::join!(run(drain), async {
        metrics::wait_for(program.admin, "upstream_instance_state", "state=\"drain\"", 1.0).await;
        signal.fire();
        client.finish(&mut response).await.unwrap();
    });
    let (code, told, complaint) = drained;
    assert_eq!((code, complaint.as_str()), (Some(0), ""), "{told}");
    assert!(told.ends_with("0 requests (0 streams); done\n"), "{told}");
}

#[tokio::test]
async fn a_drain_that_had_to_cut_something_says_so() {
    let (instance, program) = started(&Signal::new()).await;
    let (mut client, mut response) = stream(program.address).await;
    let address = instance.address().to_string();
    let drain = ["drain", &address, "--wait", "--deadline", "200ms", "--then", "close"];
    let (code, told, _) = run(upstreams(&program, &drain)).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.ends_with("0 requests (0 streams); 1 cut\n"), "{told}");
    client.finish(&mut response).await.unwrap_err();
}

#[tokio::test]
async fn what_cannot_be_done_is_told_with_a_remedy() {
    let (instance, program) = started(&Signal::new()).await;
    let (code, _, complaint) = run(upstreams(&program, &["drain", "127.0.0.1:1"])).await;
    let expected = format!(
        "vestibule: the admin API at {} answered 404 Not Found: there is no such instance; there are: {}\n",
        program.admin,
        instance.address()
    );
    assert_eq!((code, complaint), (Some(1), expected));
    for wrong in
        [&["drain"][..], &["weight", "127.0.0.1:1", "1001"], &["drain", "localhost:1"], &["list", "x"]]
    {
        let (code, _, complaint) = run(upstreams(&program, wrong)).await;
        assert_eq!(code, Some(2), "{complaint}");
    }
}
