//! File descriptors: as many as may be had, some of them for what must not fail, and nobody gets them all.

use std::fs;
use std::process::Command;

use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::support::client::Client;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::process::Process;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, Vestibule, command, write};
use crate::support::within;

/// Runs the program with these limits of open files.
async fn limited(config: &Config, soft: u32, hard: u32) -> Program {
    let program = command().get_program().to_owned();
    let shell = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
    Program::start_by(config.clone(), Command::new("sh").args(["-c", &shell]).arg(program)).await
}

fn open_files(program: &Program) -> (String, String) {
    let limits = fs::read_to_string(format!("/proc/{}/limits", program.process.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap().to_owned();
    let mut words = line.split_whitespace().map(str::to_owned);
    (words.next().unwrap(), words.next().unwrap())
}

#[tokio::test]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let program = limited(&Config::to(&[upstream.address()]), 128, 1500).await;
    assert_eq!(open_files(&program), ("1500".to_owned(), "1500".to_owned()));
}

#[tokio::test]
async fn too_few_descriptors_for_what_is_configured_are_told() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let few = limited(&Config::to(&[upstream.address()]), 400, 400).await;
    let said = few.said("fewer files can be open than the configuration needs");
    assert_eq!(said.len(), 1, "{:?}", few.process.stderr());
    assert_eq!(said[0]["open_files"], 400);
    let enough =
        Config::to(&[upstream.address()]).with("[limits]\nconnections = 100\nupstream_connections = 100");
    let enough = limited(&enough, 400, 400).await;
    assert_eq!(enough.said("fewer files can be open").len(), 0);
}

#[tokio::test]
async fn clients_and_instances_leave_descriptors_for_each_other() {
    let signal = Signal::new();
    let reply = Reply::after_body().wait(&signal).head(200, &[("content-length", "0")]);
    let upstream = Upstream::answering(reply).await;
    let config = Config::to(&[upstream.address()]).with("[timeouts]\nconnect = \"60s\"");
    let program = limited(&config, 256, 256).await;
    // Far more streams than there are descriptors.
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(H2Client::connect(program.address).await);
    }
    let streams = clients.iter().flat_map(|client| std::iter::repeat_n(client, 60)).map(|client| {
        let mut client = client.clone();
        tokio::spawn(async move {
            client.begin(http::Request::get("http://h/").body(Default::default()).unwrap()).await
        })
    });
    let streams: Vec<_> = streams.collect();
    upstream.wait_until("as many as may be", |seen| seen.requests.len() >= 40).await;
    // A new client is still served, by vestibule itself and by the admin listener.
    let mut client = Client::connect(program.address).await;
    client.send("GET http://[ HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    assert_eq!(crate::support::client::get(program.admin, "/livez").await.status, 200);
    for _ in 0..streams.len() {
        signal.fire();
    }
    for stream in streams {
        assert_eq!(within("stream", stream).await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(program.said("cannot accept").len(), 0);
}

#[tokio::test]
async fn connections_to_instances_are_bounded_and_waited_for() {
    let signal = Signal::new();
    let reply = Reply::after_body().wait(&signal).head(200, &[("content-length", "0")]);
    let upstream = Upstream::answering(reply).await;
    let limits = "[limits]\nupstream_connections = 3\n[timeouts]\nconnect = \"60s\"";
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(limits)).await;
    let clients = join_all((0..8).map(|_| async {
        let mut client = proxy.connect().await;
        client.send_request("GET", "/", &[], b"").await;
        client
    }))
    .await;
    upstream.wait_until("three requests", |seen| seen.requests.len() == 3).await;
    for (index, mut client) in clients.into_iter().enumerate() {
        for _ in 0..8 {
            signal.fire();
        }
        assert_eq!(client.response().await.status, 200, "{index}");
        assert!(upstream.connections_opened() - upstream.connections_closed() <= 3);
    }
    assert_eq!(upstream.requests().len(), 8);
}

#[tokio::test]
async fn who_waits_too_long_for_a_connection_is_told_so() {
    let upstream = Upstream::answering(Reply::after_body().hang()).await;
    let limits = "[limits]\nupstream_connections = 1\n[timeouts]\nconnect = \"100ms\"";
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(limits)).await;
    let mut first = proxy.connect().await;
    first.send_request("GET", "/", &[], b"").await;
    upstream.wait_until("the first", |seen| seen.requests.len() == 1).await;
    let second = proxy.get("/", &[]).await;
    assert_eq!((second.status, second.headers.get("retry-after")), (503, Some("1")));
    assert!(second.text().contains("limits.upstream_connections"), "{}", second.text());
    assert_eq!(proxy.metric("upstream_ejections_total", "").await, 0.0);
    assert_eq!(proxy.metric("upstream_connect_failures_total", "").await, 1.0);
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_one_to_another_instance() {
    let upstream = Upstream::answering(Reply::text(200, "one")).await;
    let other = Upstream::answering(Reply::text(200, "other")).await;
    let config = Config::to(&[upstream.address(), other.address()]).with(
        "[limits]\nupstream_connections = 1\n[timeouts]\nupstream_keep_alive = \"60s\"\nconnect = \"60s\"",
    );
    let proxy = Vestibule::start(config).await;
    let mut said = Vec::new();
    for _ in 0..6 {
        said.push(proxy.get("/", &[]).await.text().to_owned());
    }
    assert_eq!(said.iter().filter(|text| *text == "one").count(), 3, "{said:?}");
}

#[tokio::test]
async fn the_admin_listener_takes_so_many_connections_and_no_more() {
    const CAP: usize = 256;
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()])).await;
    let mut held = Vec::new();
    for _ in 0..CAP {
        let mut client = Client::connect(proxy.admin_address()).await;
        assert_eq!(client.request("GET", "/livez", &[], b"").await.status, 200);
        held.push(client);
    }
    let mut late = Client::connect(proxy.admin_address()).await;
    late.send_request("GET", "/livez", &[], b"").await;
    for _ in 0..50 {
        assert_eq!(held[0].request("GET", "/livez", &[], b"").await.status, 200);
    }
    assert!(Box::pin(late.response()).now_or_never().is_none(), "more than {CAP} were accepted");
    held.pop();
    assert_eq!(late.response().await.status, 200);
}

#[tokio::test]
async fn the_check_of_a_configuration_tells_too_few_descriptors() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let file = write(&Config::to(&[upstream.address()]).toml());
    let script = "ulimit -Sn 200; ulimit -Hn 400; exec \"$0\" check -c \"$1\"";
    let program = command().get_program().to_owned();
    let mut check = Process::start(Command::new("sh").args(["-c", script]).arg(program).arg(file.path()));
    assert!(check.exit().await.success());
    let said = check.stderr().join("\n") + &check.stdout().join("\n");
    assert!(said.contains("400 files can be open"), "{said}");
}
