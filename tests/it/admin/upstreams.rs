//! `vestibule upstreams` against a running vestibule.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use super::TOKEN;
use super::command::run;
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, Vestibule, command};
use crate::support::{metrics, within};

/// A further upstream of one instance.
fn upstream(name: &str, instance: &str) -> String {
    format!("[[upstream]]\nname = \"{name}\"\n[[upstream.instance]]\n{instance}")
}

/// The states of all instances, by upstream and address.
async fn states(program: &Program) -> Vec<(String, String, String)> {
    let (_, json, _) = run(upstreams(program, &["list", "--json"])).await;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let upstreams = report["upstreams"].as_array().unwrap().iter();
    let rows = upstreams.flat_map(|upstream| {
        let instances = upstream["instances"].as_array().unwrap().iter();
        instances.map(|one| (text(&upstream["name"]), text(&one["address"]), text(&one["state"])))
    });
    rows.collect()
}

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
    for wrong in [&["drain"][..], &["weight", "127.0.0.1:1", "1001"], &["list", "x"]] {
        let (code, _, complaint) = run(upstreams(&program, wrong)).await;
        assert_eq!(code, Some(2), "{complaint}");
    }
}

#[tokio::test]
async fn every_order_takes_an_instance_by_its_name_and_means_its_server_wherever_it_is() {
    let (a, b) =
        (Upstream::answering(Reply::text(200, "")).await, Upstream::answering(Reply::text(200, "")).await);
    let (at_a, at_b) = (a.address().to_string(), b.address().to_string());
    let config = Config::to(&[b.address()])
        .token(TOKEN)
        .instance(&format!("[[upstream.instance]]\naddress = \"{at_a}\"\nname = \"one\""))
        .with(&upstream("api", &format!("address = \"{at_a}\"")));
    let program = Program::start(config).await;
    let expected = |state: &str| {
        let row = |upstream: &str, address: &str, state: &str| {
            (upstream.to_owned(), address.to_owned(), state.to_owned())
        };
        vec![row("app", &at_b, "ready"), row("app", &at_a, state), row("api", &at_a, state)]
    };
    for (arguments, state) in [
        (&["drain", "one"][..], "drain"),
        (&["ready", "one", "--wait"], "ready"),
        (&["down", "one", "--wait"], "down"),
        (&["weight", "one", "5"], "down"),
        (&["ready", "one"], "ready"),
        (&["drain", "one", "--wait"], "drain"),
    ] {
        let (code, told, complaint) = run(upstreams(&program, arguments)).await;
        assert_eq!((code, complaint.as_str()), (Some(0), ""), "{arguments:?}: {told}");
        assert!(!told.contains(&at_b), "{told}");
        assert_eq!(states(&program).await, expected(state), "{arguments:?}");
    }
    let (code, told, _) = run(upstreams(&program, &["ready", "one", "--upstream", "app"])).await;
    assert!(
        code == Some(0) && told.lines().nth(1).unwrap().contains("one") && !told.contains("api"),
        "{told}"
    );
    let (code, _, complaint) = run(upstreams(&program, &["drain", "two"])).await;
    let mut known = [format!("{at_a} (one)"), at_b];
    known.sort();
    assert_eq!(code, Some(1));
    assert!(
        complaint.ends_with(&format!("there is no such instance; there are: {}\n", known.join(", "))),
        "{complaint}"
    );
}

#[tokio::test]
async fn a_name_that_means_several_servers_is_refused_until_it_is_said_which() {
    let (a, b) =
        (Upstream::answering(Reply::text(200, "")).await, Upstream::answering(Reply::text(200, "")).await);
    let named = |instance: &Upstream| format!("address = \"{}\"\nname = \"one\"", instance.address());
    let config = Config::to(&[])
        .token(TOKEN)
        .instance(&format!("[[upstream.instance]]\n{}", named(&a)))
        .with(&upstream("api", &named(&b)));
    let program = Program::start(config).await;
    let several = format!(
        "409 Conflict: this name means several servers: {} (app), {} (api); give the address, or name the upstream\n",
        a.address(),
        b.address()
    );
    let drill = ["drill", "instance", "one", "--for", "1s", "--before", "1ms", "--yes", "--admin"];
    let mut drill_one = command();
    drill_one.args(drill).arg(program.admin.to_string()).env("VESTIBULE_ADMIN_TOKEN", TOKEN);
    for refused in [upstreams(&program, &["drain", "one"]), drill_one] {
        let (code, told, complaint) = run(refused).await;
        assert_eq!((code, told.as_str()), (Some(1), ""));
        assert!(complaint.ends_with(&several), "{complaint}");
    }
    let (code, ..) = run(upstreams(&program, &["drain", "one", "--upstream", "api"])).await;
    assert_eq!(code, Some(0));
    let states: Vec<_> =
        states(&program).await.into_iter().map(|(upstream, _, state)| (upstream, state)).collect();
    assert_eq!(states, [("app".to_owned(), "ready".to_owned()), ("api".to_owned(), "drain".to_owned())]);
}

#[tokio::test]
async fn the_list_says_why_an_instance_is_down_and_what_it_is_called() {
    let (sick, well) =
        (Upstream::answering(Reply::text(500, "")).await, Upstream::answering(Reply::text(200, "")).await);
    let config = Config::to(&[])
        .token(TOKEN)
        .upstream("[upstream.health]\ninterval = \"20ms\"\ntimeout = \"10m\"\nrise = 1\nfall = 1")
        .instance(&format!("[[upstream.instance]]\naddress = \"{}\"\nname = \"sick\"", sick.address()))
        .instance(&format!("[[upstream.instance]]\naddress = \"{}\"", well.address()));
    let program = Program::start(config).await;
    metrics::wait_for(program.admin, "upstream_instance_condition", "condition=\"down\"", 1.0).await;
    metrics::wait_for(program.admin, "upstream_instance_condition", "condition=\"up\"", 1.0).await;
    let (code, told, _) = run(upstreams(&program, &["list"])).await;
    assert_eq!(code, Some(0));
    let rows: Vec<_> = told.lines().map(|line| Vec::from_iter(line.split_whitespace()).join(" ")).collect();
    let expected = [
        "UPSTREAM INSTANCE STATE CONDITION WEIGHT REQUESTS STREAMS SESSIONS DEADLINE NAME REASON".to_owned(),
        format!("app {} ready down 1 0 0 - - sick answered 500 Internal Server Error", sick.address()),
        format!("app {} ready up 1 0 0 - - - checks succeed", well.address()),
    ];
    assert_eq!(rows, expected, "{told}");
}

#[tokio::test]
async fn an_upstream_without_instances_is_listed_as_such() {
    let instance = Upstream::answering(Reply::text(200, "")).await;
    let later = "[[upstream]]\nname = \"later\"\n[upstream.discovery]\nfile = \"/nowhere/instances.toml\"";
    let proxy = Vestibule::start(Config::to(&[instance.address()]).token(TOKEN).with(later)).await;
    let list = |more: &[&str]| {
        let mut list = command();
        list.args(["upstreams", "list", "--admin", &proxy.admin_address().to_string()]).args(more);
        list.env("VESTIBULE_ADMIN_TOKEN", TOKEN);
        run(list)
    };
    let (code, told, complaint) = list(&[]).await;
    assert_eq!((code, told.lines().count()), (Some(0), 2), "{told}");
    assert_eq!(complaint, "later has no instances: its discovery has found none\n");
    let (code, json, complaint) = list(&["--json"]).await;
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["upstreams"][1]["name"], "later");
    assert_eq!(report["upstreams"][1]["instances"], serde_json::json!([]));
}

#[tokio::test]
async fn a_check_under_way_is_no_request_that_a_drain_waits_for_or_tells_of() {
    // From some time on, checks are not answered.
    let (hanging, hung) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (hangs, count) = (hanging.clone(), hung.clone());
    let instance = Upstream::start(move |_| match hangs.load(SeqCst) {
        true => {
            count.fetch_add(1, SeqCst);
            Reply::after_body().hang()
        }
        false => Reply::text(200, "ok"),
    })
    .await;
    let checks = "max_requests = 4\n[upstream.health]\ninterval = \"20ms\"\ntimeout = \"10m\"";
    let program = Program::start(Config::to(&[instance.address()]).token(TOKEN).upstream(checks)).await;
    hanging.store(true, SeqCst);
    within("a check", async {
        while hung.load(SeqCst) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // it is for asking only
        }
    })
    .await;
    let address = instance.address().to_string();
    let (_, json, _) = run(upstreams(&program, &["list", "--json"])).await;
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["upstreams"][0]["instances"][0]["requests"], 0);
    assert_eq!(metrics::read(program.admin, "upstream_requests_in_flight", "").await, 0.0);
    let (code, told, _) = run(upstreams(&program, &["drain", &address, "--wait"])).await;
    assert_eq!((code, told.as_str()), (Some(0), "0 requests (0 streams); done\n"));
    let (code, ..) = run(upstreams(&program, &["drain", &address, "--deadline", "1ms"])).await;
    assert_eq!(code, Some(0));
    let passed = program.process.wait_for_line("the deadline", |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["message"].as_str()?.starts_with("the deadline has passed").then_some(line)
    });
    assert_eq!(passed.await["left"], 0);
}
