//! A new process takes over from a running one; nobody is refused, cut or forgotten.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::client::{self, Client};
use crate::support::config::Config;
use crate::support::process::Process;
use crate::support::service::{Service, begin, chunk, send};
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, command, write};
use crate::support::{DEADLINE, within, ws};

/// What the log says when a new process has not taken over.
const FAILED: &str = "the upgrade failed";

#[tokio::test]
async fn clients_of_the_old_process_keep_what_they_have_and_new_ones_are_served_by_the_new() {
    let signal = Signal::new();
    let upstream =
        Upstream::answering(Reply::chunked(200, &[]).chunk("first").wait(&signal).chunk("last").end()).await;
    let mut program = Program::start(Config::to(&[upstream.address()]).workers(2)).await;
    let (mut streaming, mut idle) =
        (Client::connect(program.address).await, Client::connect(program.address).await);
    assert_eq!(idle.request("HEAD", "/", &[], b"").await.status, 200);
    streaming.send_request("GET", "/", &[], b"").await;
    let mut response = streaming.start_response().await;

    let new = program.upgrade(program.process.id(), 0).await;
    assert_ne!(new.0, program.process.id());
    let (mut late, mut late_response) = within("an answer of the new process", async {
        loop {
            let mut late = Client::connect(program.address).await;
            late.send_request("GET", "/", &[], b"").await;
            let response = late.start_response().await;
            // A worker of the old process that has not heard of it yet still accepts clients.
            if response.headers.get("connection").is_none() {
                return (late, response);
            }
        }
    })
    .await;
    idle.send_request("GET", "/", &[], b"").await;
    let mut last_response = idle.start_response().await;
    assert_eq!(last_response.headers.get("connection"), Some("close"), "the old process serves it once more");

    for _ in 0..100 {
        signal.fire();
    }
    for (client, response) in
        [(&mut streaming, &mut response), (&mut idle, &mut last_response), (&mut late, &mut late_response)]
    {
        client.finish(response).await.unwrap();
        assert!(response.text().ends_with("last"), "{}", response.text());
    }
    idle.assert_closed().await;
    drop(streaming);
    assert_eq!(program.process.end().await.code(), Some(0));
    assert_eq!(late.request("GET", "/", &[], b"").await.status, 200);
    assert_eq!(client::get(program.admin, "/readyz").await.status, 200);
}

#[tokio::test]
async fn clients_that_nobody_has_accepted_yet_are_served_by_the_new_process() {
    let service = Service::telling(|_| "served".to_owned());
    let limits = "[limits]\nconnections = 1";
    let mut program = Program::start(Config::to(&[service.address()]).with(limits)).await;
    let mut first = Client::connect(program.address).await;
    assert_eq!(first.request("GET", "/", &[], b"").await.text(), "served");
    let mut waiting = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(program.address).await;
        client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await;
        waiting.push(client);
    }
    let _new = program.upgrade(program.process.id(), 0).await;
    // The old process has accepted one that waits for its only place.
    drop(first);
    for mut client in waiting {
        assert_eq!(client.response().await.text(), "served");
    }
    assert_eq!(program.process.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_new_process_that_fails_leaves_everything_as_it_was() {
    let service = Service::telling(|_| "served".to_owned());
    let good = Config::to(&[service.address()]);
    let program = Program::start(good.clone()).await;
    let mut client = Client::connect(program.address).await;
    for failures in 1..=2 {
        program.configure(&good.clone().with("[limits]\nuri_bytes = \"none\""));
        program.process.signal("USR2");
        failed(&program, failures).await;
        let said = program.said(FAILED)[failures - 1].to_string();
        assert!(said.contains("ended (exit status: 1)"), "{said}");
        let output = program.process.stderr().join("\n");
        assert!(output.contains("limits.uri_bytes"), "the new process itself says why: {output}");
        assert_eq!(client.request("GET", "/", &[], b"").await.text(), "served");
        assert_eq!(client::get(program.address, "/").await.text(), "served");
        assert_eq!(client::get(program.admin, "/readyz").await.status, 200);
    }
    program.configure(&good);
    let _new = program.upgrade(program.process.id(), 0).await;
    assert_eq!(client::get(program.address, "/").await.text(), "served");
}

#[tokio::test]
async fn a_new_process_that_is_not_ready_in_time_is_ended() {
    let service = Service::telling(|_| "served".to_owned());
    // It waits for its connections to the store first.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let tables = format!(
        "[upgrade]\ntimeout = \"6s\"\n[session.store]\nurl = \"redis://{address}\"\nconnect_timeout = \"12s\""
    );
    let program = Program::start(Config::to(&[service.address()]).with(&tables)).await;
    program.process.signal("USR2");
    failed(&program, 1).await;
    let said = program.said(FAILED)[0].to_string();
    assert!(said.contains("did not answer in time"), "{said}");
    assert_eq!(client::get(program.address, "/").await.text(), "served");
    assert_eq!(program.said("listening").len(), 2, "the new process got as far as that");
}

async fn failed(program: &Program, times: usize) {
    within(FAILED, async {
        while program.said(FAILED).len() < times {
            tokio::time::sleep(Duration::from_millis(5)).await; // lines are for reading, not for waiting
        }
    })
    .await;
}

#[tokio::test]
async fn ties_hold_though_no_secret_is_configured() {
    let services = [1, 2].map(|number| Service::telling(move |_| number.to_string()));
    let addresses: Vec<_> = services.iter().map(Service::address).collect();
    let program = Program::start(Config::to(&addresses).with("[session]\nmode = \"sticky\"")).await;
    let first = client::get(program.address, "/").await;
    let cookie = first.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let (mut process, mut successors) = (program.process.id(), Vec::new());
    for upgrade in 0..2 {
        let new = program.upgrade(process, upgrade).await;
        process = new.0;
        successors.push(new);
        for _ in 0..4 {
            let again = client::get_with(program.address, "/", &[("Cookie", &cookie)]).await;
            assert_eq!((again.text(), again.headers.get("set-cookie")), (first.text(), None));
        }
    }
}

/// An answer that begins and never ends.
fn endless() -> Service {
    Service::start(async |_, wire| {
        begin(wire, "text/event-stream").await?;
        chunk(wire, b"data: 1\n\n").await?;
        wire.until(std::future::pending()).await
    })
}

#[tokio::test]
async fn the_old_process_is_bounded_by_age_and_memory() {
    for (limits, name) in
        [("max_age = \"300ms\"", "upgrade.max_age"), ("max_memory = \"16MiB\"", "upgrade.max_memory")]
    {
        let service = endless();
        let config = Config::to(&[service.address()]).with(&format!("[upgrade]\n{limits}"));
        let mut program = Program::start(config).await;
        let mut client = Client::connect(program.address).await;
        client.send_request("GET", "/", &[], b"").await;
        let mut response = client.start_response().await;
        let _new = program.upgrade(program.process.id(), 0).await;
        assert_eq!(program.process.end().await.code(), Some(3));
        assert!(client.finish(&mut response).await.is_err(), "cut answers do not look complete");
        let said = program.said("this process has been taken over from");
        assert_eq!((said.len(), said[0]["limit"].as_str()), (1, Some(name)));
    }
}

#[tokio::test]
async fn a_retired_process_still_ends_when_it_is_told_to() {
    let service = endless();
    let config = Config::to(&[service.address()]).with("[shutdown]\ndeadline = \"200ms\"");
    let mut program = Program::start(config).await;
    let mut socket = Client::connect(program.address).await;
    socket.send_request("GET", "/", &[], b"").await;
    socket.start_response().await;
    let _new = program.upgrade(program.process.id(), 0).await;
    program.process.signal("TERM");
    assert_eq!(program.process.end().await.code(), Some(3));
    assert!(TcpStream::connect(program.address).await.is_ok());
}

#[tokio::test]
async fn websockets_stay_with_the_old_process_until_they_end() {
    let mut program = Program::start(Config::to(&[ws::echo_server().await])).await;
    let mut socket = ws::connect(program.address, "/").await;
    let _new = program.upgrade(program.process.id(), 0).await;
    assert_eq!(ws::exchange(&mut socket, "still here").await.to_text().unwrap(), "still here");
    drop(socket);
    assert_eq!(program.process.end().await.code(), Some(0));
}

/// Runs the program with `listener` as file descriptor 3, as a service manager does.
fn activated(config: &std::path::Path, listener: OwnedFd) -> Process {
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, "sh"]).arg(command().get_program());
    shell.args(["--log-format", "json", "run", "-c"]).arg(config);
    Process::start_reading(&mut shell, Stdio::from(listener))
}

#[tokio::test]
async fn sockets_of_the_service_manager_are_used_with_who_waits_on_them() {
    let service = Service::telling(|_| "served".to_owned());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut early = Client::connect(address).await;
    early.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let config = Config::to(&[service.address()]).workers(2).toml();
    let config = write(&config.replacen("127.0.0.1:0", &address.to_string(), 1));
    let mut process = activated(config.path(), listener.try_clone().unwrap().into());
    assert_eq!(early.response().await.text(), "served");
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0));
    assert!(TcpStream::connect(address).await.is_ok(), "the service manager still listens");
}

#[tokio::test]
async fn a_socket_that_the_configuration_does_not_name_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = write(&Config::to(&["127.0.0.1:1".parse().unwrap()]).toml());
    let mut process = activated(config.path(), listener.into());
    assert_eq!(process.exit().await.code(), Some(1));
    let said = process.stderr().join("\n");
    assert!(said.contains(&address) && said.contains("[[listener]]"), "{said}");
}

#[tokio::test]
async fn the_service_manager_is_told_who_serves() {
    let service = Service::start(async |_, wire| send(wire, 200, &[], "served").await);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let told = UnixDatagram::bind(&path).unwrap();
    told.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let length = told.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let config = Config::to(&[service.address()]);
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "60000000")];
    let mut program = Program::start_in(config, &environment).await;
    assert_eq!(next(), format!("READY=1\nMAINPID={}\n", program.process.id()));
    assert_eq!(next(), "WATCHDOG=1\n");
    let new = program.upgrade(program.process.id(), 0).await;
    assert_eq!(next(), format!("READY=1\nMAINPID={}\n", new.0));
    assert_eq!(next(), "WATCHDOG=1\n");
    assert_eq!(program.process.end().await.code(), Some(0));
    crate::support::process::signal(new.0, "TERM");
    assert_eq!(next(), "STOPPING=1\n", "only the new process says so");
}
