//! Told to stop, the program ends what runs, takes nothing new, and says with its exit code how that went.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{Pace, report, scaled};
use crate::support::client::{self, Client, Response};
use crate::support::config::Config;
use crate::support::service::{Service, begin, chunk};
use crate::support::vestibule::Program;
use crate::support::{NEVER, within};

const TICK: Duration = Duration::from_millis(100);
/// How soon "at once" is on a machine that has other things to do.
const SOON: Duration = Duration::from_secs(1);

fn ticks() -> usize {
    scaled(50, 100)
}

/// An instance whose answer is a stream of ticks: of 5 s in the short form, of 10 s in the long.
fn ticking() -> Service {
    Service::start(async |_, wire| {
        begin(wire, "text/event-stream").await?;
        for tick in 0..ticks() {
            chunk(wire, format!("data: {tick}\n\n").as_bytes()).await?;
            wire.until(sleep(TICK)).await?;
        }
        chunk(wire, b"").await
    })
}

async fn start(instance: &Service, shutdown: &str) -> Program {
    let tables = format!("[shutdown]\n{shutdown}");
    Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await
}

/// A stream whose first tick has come.
async fn stream(program: &Program) -> (Client, Response) {
    let mut client = Client::connect(program.address).await;
    client.send_request("GET", "/", &[], b"").await;
    let mut response = client.start_response().await;
    assert_eq!(client.next_piece(&mut response).await.unwrap(), Some(b"data: 0\n\n".to_vec()));
    (client, response)
}

/// Reads to the end; every tick must be there.
async fn finish((mut client, mut response): (Client, Response)) {
    client.finish(&mut response).await.unwrap();
    let expected: String = (1..ticks()).map(|tick| format!("data: {tick}\n\n")).collect();
    assert_eq!(response.text(), expected);
    client.assert_closed().await;
}

#[tokio::test]
async fn streams_are_whole_although_the_program_was_told_to_stop_within_them() {
    let instance = ticking();
    let mut program = start(&instance, "accept_grace = \"2s\"").await;
    let (pace, mut streams) = (Pace::start(), Vec::new());
    for _ in 0..4 {
        streams.push(tokio::spawn(finish(stream(&program).await)));
    }
    let told = Instant::now();
    program.process.signal("TERM");
    program.wait_for_readiness(503).await;
    report("not ready after", format!("{:.2?}", told.elapsed()));
    streams.push(tokio::spawn(finish(stream(&program).await))); // in its grace it still takes new ones
    within("new clients to be refused", async {
        while TcpStream::connect(program.address).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    report("refusing after", format!("{:.2?}", told.elapsed()));
    let mut watched = 0;
    while streams.iter().all(|stream| !stream.is_finished()) {
        assert!(TcpStream::connect(program.address).await.is_err());
        assert_eq!(client::get(program.admin, "/readyz").await.status, 503);
        assert_eq!(client::get(program.admin, "/livez").await.status, 200);
        watched += 1;
        sleep(TICK / 2).await;
    }
    assert!(watched >= scaled(1, ticks() / 2), "watched only {watched} times");
    for stream in streams {
        stream.await.unwrap();
    }
    let ended = Instant::now();
    assert_eq!(program.process.exit().await.code(), Some(0), "{:?}", program.process.stderr());
    report("gone after", format!("{:.2?} of its last stream's end", ended.elapsed()));
    assert!(pace.since(ended) < SOON + LINGER, "{:?}", ended.elapsed());
}

/// How long a connection that is being closed listens to its client.
const LINGER: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_stream_beyond_the_deadline_is_cut_and_the_exit_code_says_so() {
    let deadline = scaled(Duration::from_millis(600), Duration::from_secs(3));
    let instance = ticking();
    let mut program = start(&instance, &format!("deadline = \"{}ms\"", deadline.as_millis())).await;
    let (mut client, mut response) = stream(&program).await;
    let (pace, told) = (Pace::start(), Instant::now());
    program.process.signal("TERM");
    let cut = client.finish(&mut response).await.unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(program.process.exit().await.code(), Some(3), "{:?}", program.process.stderr());
    let took = told.elapsed();
    let line: serde_json::Value = serde_json::from_str(&program.process.stdout()[0]).unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"shutdown".into()));
    report("deadline", format!("{deadline:?}: gone after {took:.2?}"));
    assert!(took >= deadline && pace.net(told, took) < deadline + SOON, "{took:?}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let instance = ticking();
        let mut program = start(&instance, &format!("accept_grace = \"{NEVER}\"")).await;
        let (mut client, mut response) = stream(&program).await;
        program.process.signal(first);
        program.wait_for_readiness(503).await;
        let (pace, told) = (Pace::start(), Instant::now());
        program.process.signal(second);
        assert_eq!(program.process.exit().await.code(), Some(3), "{:?}", program.process.stderr());
        assert!(pace.since(told) < SOON, "{:?}", told.elapsed());
        report("second signal", format!("gone after {:.2?}", told.elapsed()));
        assert!(client.finish(&mut response).await.is_err());
    }
}
