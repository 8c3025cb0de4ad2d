//! A rehearsed failure hurts as a real one does, ends by itself, and is told as it was.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::admin::command::run;
use crate::support::client::{Client, Response, get_with};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::process::Process;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, Vestibule, command};
use crate::support::within;

const TOKEN: &str = "operator-token-0123456789";
const DRILLS: &str = "/api/v1/drills";
const SESSION: (&str, &str) = ("Cookie", "session-id=abc");

fn config(instances: &[&Upstream]) -> Config {
    let addresses: Vec<_> = instances.iter().map(|instance| instance.address()).collect();
    Config::to(&addresses).token(TOKEN)
}

async fn with_redis(redis: &Redis, instance: &Upstream, more: &str) -> Config {
    redis.put_session("abc", &[("user_id", "42")]).await;
    config(&[instance]).with(&format!("[session.store]\nurl = \"{}\"\n{more}", redis.url()))
}

fn drill(admin: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = command();
    command.arg("drill").args(arguments).args(["--admin", &admin.to_string()]);
    command.env("VESTIBULE_ADMIN_TOKEN", TOKEN).stdin(Stdio::null());
    command
}

async fn call(admin: SocketAddr, token: &str, document: Value) -> Response {
    let token = format!("Bearer {token}");
    let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
    Client::connect(admin).await.request("POST", DRILLS, &headers, document.to_string().as_bytes()).await
}

async fn ask(admin: SocketAddr, document: Value) -> (u16, Value) {
    let answer = call(admin, TOKEN, document).await;
    (answer.status, answer.json())
}

fn begin(target: Value, time: &str) -> Value {
    let mut call = json!({ "action": "begin", "for": time });
    call.as_object_mut().unwrap().extend(target.as_object().unwrap().clone());
    call
}

/// Starts the command; what it has printed comes when it has ended.
fn started(command: Command) -> JoinHandle<(Option<i32>, String, String)> {
    tokio::spawn(run(command))
}

async fn wait_for_drill(admin: SocketAddr, target: &str, runs: bool) {
    let labels = format!("target=\"{target}\"");
    metrics::wait_for(admin, "vestibule_drill", &labels, f64::from(u8::from(runs))).await;
}

/// What the log says ended a drill, after so many before.
async fn ended_by(program: &Program, before: usize) -> String {
    within("the end of a drill", async {
        loop {
            if let Some(line) = program.said("THE DRILL IS OVER").get(before) {
                return line["by"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // lines are for reading, not for waiting
        }
    })
    .await
}

#[tokio::test]
async fn the_account_of_a_cut_store_is_what_the_clients_saw() {
    let (redis, instance) = (Redis::start().await, Upstream::answering(Reply::text(200, "ok")).await);
    let program =
        Program::start(with_redis(&redis, &instance, "[session.cache]\nenabled = false").await).await;
    let get = async || get_with(program.address, "/", &[SESSION]).await.status;
    assert_eq!(get().await, 200, "not counted: it was before");
    let drill = started(drill(program.admin, &["store", "--for", "2s", "--yes", "--json"]));
    wait_for_drill(program.admin, "store", true).await;
    // So that the last of them is over long before the drill.
    for _ in 0..5 {
        assert_eq!(get().await, 503);
    }
    assert_eq!(get_with(program.address, "/", &[]).await.status, 200, "nobody's session is asked for");
    wait_for_drill(program.admin, "store", false).await;
    while get().await != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await; // the store is connected again by and by
    }
    let (code, out, said) = within("drill", drill).await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    let account: Value = serde_json::from_str(&out).unwrap();
    let during = &account["during"];
    assert_eq!(during["statuses"], json!({ "200": 1, "503": 5 }));
    assert_eq!([&during["requests"], &during["errors"], &during["sessions_denied"]], [6, 5, 5]);
    assert_eq!(account["before"]["requests"], 0);
    assert_eq!((&account["ended_by"], &account["running"]), (&json!("time"), &json!(false)));
    assert!(account["took_ms"].as_u64().unwrap() >= 2_000);
    assert!(account["recovered_ms"].is_u64(), "{account}");
    assert_eq!(program.said("A DRILL BEGINS").len(), 1);
    assert_eq!(ended_by(&program, 0).await, "time");
}

#[tokio::test]
async fn cached_sessions_live_as_long_as_after_a_lost_connection_and_no_longer() {
    let (redis, instance) = (Redis::start().await, Upstream::answering(Reply::text(200, "ok")).await);
    let stale = with_redis(&redis, &instance, "on_outage = { stale = \"1m\" }").await;
    let proxy = Vestibule::start(stale).await;
    proxy.wait_for_metric("session_cache_fresh", "", 1.0).await;
    assert_eq!(proxy.get("/", &[SESSION]).await.status, 200);
    let (status, account) = ask(proxy.admin_address(), begin(json!({ "store": true }), "1m")).await;
    assert_eq!((status, &account["running"]), (200, &json!(true)));
    proxy.wait_for_metric("session_cache_fresh", "", 0.0).await;
    assert_eq!(proxy.get("/", &[SESSION]).await.status, 200);
    let (_, account) = ask(proxy.admin_address(), json!({ "action": "end", "drill": account["id"] })).await;
    assert_eq!(account["during"]["sessions"], json!({ "stale": 1 }));
    assert_eq!(account["ended_by"], "asked");
    proxy.wait_for_metric("session_cache_fresh", "", 1.0).await;
    redis.command::<()>("DEL", "session:abc").await;
    within("the end of the session", async {
        while proxy.get("/", &[SESSION]).await.headers.get("set-cookie").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await; // changes are heard of again
        }
    })
    .await;
}

#[tokio::test]
async fn a_fenced_instance_gets_nothing_and_its_answers_are_cut() {
    let signal = Signal::new();
    let streaming = Reply::chunked(200, &[]).chunk("first").wait(&signal).chunk("last").end();
    let a = Upstream::answering(streaming).await;
    let b = Upstream::answering(Reply::text(200, "b")).await;
    let program = Program::start(config(&[&a, &b]).with("[session]\nmode = \"sticky\"")).await;
    let mut client = Client::connect(program.address).await;
    client.send_request("GET", "/", &[], b"").await;
    let mut cut = client.start_response().await;
    let tie = cut.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let address = a.address().to_string();
    let drill = started(drill(program.admin, &["instance", &address, "--for", "2s", "--yes"]));
    wait_for_drill(program.admin, "instance", true).await;
    assert!(client.finish(&mut cut).await.is_err(), "cut, and seen as cut");
    for _ in 0..3 {
        assert_eq!(get_with(program.address, "/", &[]).await.text(), "b");
    }
    assert_eq!(get_with(program.address, "/", &[("Cookie", &tie)]).await.text(), "b", "tied or not");
    assert_eq!(
        metrics::read(program.admin, "upstream_instance_condition", "condition=\"fenced\"").await,
        1.0
    );
    wait_for_drill(program.admin, "instance", false).await;
    for _ in 0..4 {
        signal.fire();
    }
    while get_with(program.address, "/", &[]).await.text() == "b" {}
    let (code, out, said) = within("drill", drill).await.unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("instance {address} will get no request for 2s")), "{said}");
    assert!(
        said.contains("it has 1 requests under way") && said.contains("; others that serve: 1\n"),
        "{said}"
    );
    assert!(out.starts_with(&format!("drill: instance {address}, ended by time, 1 answers cut")), "{out}");
    let during = |name: &str| {
        let line =
            out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in {out}"));
        line[name.len()..].split_whitespace().nth(1).unwrap().to_owned()
    };
    // Three new ones, one that was tied, and the one that was cut.
    assert_eq!([during("requests"), during("ties lost"), during("errors (500 and more)")], ["5", "1", "0"]);
}

#[tokio::test]
async fn answers_under_way_can_be_kept_and_an_instance_is_called_by_its_name() {
    let signal = Signal::new();
    let a =
        Upstream::answering(Reply::chunked(200, &[]).chunk("first").wait(&signal).chunk("last").end()).await;
    let b = Upstream::answering(Reply::text(200, "b")).await;
    let named = format!("[[upstream.instance]]\naddress = \"{}\"\nname = \"one\"", a.address());
    let proxy = Vestibule::start(config(&[&b]).instance(&named).with("[session]\nmode = \"local\"")).await;
    let admin = proxy.admin_address();
    assert_eq!(proxy.get("/", &[]).await.text(), "b");
    let mut client = proxy.connect().await;
    client.send_request("GET", "/", &[], b"").await;
    let mut kept = client.start_response().await;
    let (_, account) = ask(admin, begin(json!({ "instance": "one", "open": "keep" }), "1m")).await;
    assert_eq!(account["cut"], 0);
    assert_eq!(proxy.get("/", &[]).await.text(), "b");
    signal.fire();
    client.finish(&mut kept).await.unwrap();
    assert_eq!(kept.text(), "firstlast");
    let (_, account) = ask(admin, json!({ "action": "end", "drill": account["id"] })).await;
    assert_eq!((&account["well"], &account["during"]["requests"]), (&json!(true), &json!(2)));
}

#[tokio::test]
async fn a_drill_needs_the_token_and_there_is_one_at_a_time() {
    let instance = Upstream::answering(Reply::text(200, "ok")).await;
    let proxy = Vestibule::start(config(&[&instance])).await;
    let admin = proxy.admin_address();
    let target = json!({ "instance": instance.address().to_string() });
    let refused = call(admin, "another-token-0123456789", begin(target.clone(), "1m")).await;
    assert_eq!(refused.status, 401);
    let (status, account) = ask(admin, begin(target.clone(), "1m")).await;
    assert_eq!(status, 200);
    for second in [begin(target.clone(), "1s"), json!({ "action": "measure", "store": true })] {
        let (status, problem) = ask(admin, second).await;
        assert_eq!(status, 409);
        let expected = format!("another drill runs already: instance {}", instance.address());
        assert_eq!(problem["detail"], expected);
    }
    assert_eq!(proxy.get("/", &[]).await.status, 503, "it was the only one");
    assert_eq!(ask(admin, json!({ "action": "end", "drill": account["id"] })).await.0, 200);
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    for (document, status) in [
        (begin(target.clone(), "301s"), 422),
        (begin(target.clone(), "0s"), 422),
        (begin(json!({ "store": true }), "1s"), 422),
        (begin(json!({}), "1s"), 422),
        (begin(json!({ "instance": "nobody" }), "1s"), 404),
        (json!({ "action": "continue", "drill": 99_999_999 }), 404),
        (json!({ "action": "kill" }), 400),
    ] {
        assert_eq!(ask(admin, document.clone()).await.0, status, "{document}");
    }
}

#[tokio::test]
async fn without_the_token_or_consent_nothing_is_done() {
    let instance = Upstream::answering(Reply::text(200, "ok")).await;
    let program = Program::start(config(&[&instance])).await;
    let address = instance.address().to_string();
    let arguments = ["instance", &address, "--for", "1s"];
    let too_long = ["instance", &address, "--for", "301s", "--yes"];
    let (code, _, said) = run(drill(program.admin, &too_long)).await;
    assert_eq!((code, said.contains("--for is to be from 1ms to 5m")), (Some(1), true), "{said}");
    let (code, _, said) = run(drill(program.admin, &arguments)).await;
    assert_eq!((code, said.contains("needs --yes")), (Some(2), true), "{said}");
    let mut without = drill(program.admin, &arguments);
    without.arg("--yes").env_remove("VESTIBULE_ADMIN_TOKEN");
    let (code, _, said) = run(without).await;
    assert_eq!((code, said.contains("no token: set VESTIBULE_ADMIN_TOKEN")), (Some(1), true), "{said}");
    let mut wrong = drill(program.admin, &arguments);
    wrong.arg("--yes").env("VESTIBULE_ADMIN_TOKEN", "another-token-0123456789");
    let (code, _, said) = run(wrong).await;
    assert_eq!((code, said.contains("does not accept the token")), (Some(1), true), "{said}");
    assert_eq!(program.said("A DRILL BEGINS").len(), 0);
}

#[tokio::test]
async fn a_drill_ends_by_itself_when_the_command_is_killed_and_at_once_when_it_is_interrupted() {
    let instance = Upstream::answering(Reply::text(200, "ok")).await;
    let program = Program::start(config(&[&instance])).await;
    let address = instance.address().to_string();
    for (signal, by) in [("KILL", "silence"), ("INT", "asked")] {
        let before = program.said("THE DRILL IS OVER").len();
        let process = Process::start(&mut long(program.admin, &address));
        wait_for_drill(program.admin, "instance", true).await;
        process.signal(signal);
        wait_for_drill(program.admin, "instance", false).await;
        assert_eq!(ended_by(&program, before).await, by);
        assert_eq!(get_with(program.address, "/", &[]).await.status, 200);
    }
}

/// A drill that would take minutes.
fn long(admin: SocketAddr, instance: &str) -> Command {
    drill(admin, &["instance", instance, "--for", "4m", "--before", "0s", "--yes"])
}

#[tokio::test]
async fn a_drill_ends_with_the_process_that_it_is_in() {
    let instance = Upstream::answering(Reply::text(200, "ok")).await;
    let mut program = Program::start(config(&[&instance])).await;
    let target = json!({ "instance": instance.address().to_string() });
    assert_eq!(ask(program.admin, begin(target, "1m")).await.0, 200);
    program.process.signal("TERM");
    assert_eq!(program.process.end().await.code(), Some(0));
    assert_eq!(ended_by(&program, 0).await, "shutdown");
}
