//! Many event streams at once: every event goes on as it comes, and either end is told when the other leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Spread, report, scaled};
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::service::{Service, begin, chunk};
use crate::support::vestibule::Program;
use crate::support::within;

const IN_FLIGHT: &str = "upstream_requests_in_flight";
/// Between the events of two streams.
const STEP: Duration = Duration::from_millis(1);

fn count() -> usize {
    scaled(100, 1000)
}

async fn in_front_of(instance: &Service) -> Program {
    Program::start(Config::to(&[instance.address()]).workers(2)).await
}

/// Opens all streams, `/0` and up, as far as their heads.
async fn open(program: &Program) -> Vec<(Client, Response)> {
    let streams = stream::iter(0..count()).map(async |number| {
        let mut client = Client::connect(program.address).await;
        client.send_request("GET", &format!("/{number}"), &[("Accept", "text/event-stream")], b"").await;
        let response = client.start_response().await;
        assert_eq!(response.headers.get("content-type"), Some("text/event-stream"));
        (client, response)
    });
    streams.buffered(20).collect().await
}

/// The number of the stream that a request line asks for.
fn number(start_line: &str) -> usize {
    start_line.split(['/', ' ']).nth(2).unwrap().parse().unwrap()
}

#[tokio::test]
async fn every_event_of_a_thousand_streams_arrives_whole_before_the_next_is_sent() {
    let events = scaled(5, 10);
    let clock = Instant::now();
    let due: Arc<Vec<Semaphore>> = Arc::new((0..count()).map(|_| Semaphore::new(0)).collect());
    let sending = due.clone();
    let instance = Service::start(async move |request, wire| {
        let number = number(&request.start_line);
        begin(wire, "text/event-stream").await?;
        for event in 0..events {
            wire.until(sending[number].acquire()).await?.unwrap().forget();
            let sent = clock.elapsed().as_nanos();
            chunk(wire, format!("data: {number} {event} {sent}\n\n").as_bytes()).await?;
        }
        chunk(wire, b"").await
    });
    let program = in_front_of(&instance).await;
    let streams = open(&program).await;

    let (mut reading, round) = (JoinSet::new(), STEP * u32::try_from(count()).unwrap());
    let begin = tokio::time::Instant::now() + Duration::from_millis(10);
    for (number, (mut client, mut response)) in streams.into_iter().enumerate() {
        let (due, offset) = (due.clone(), STEP * u32::try_from(number).unwrap());
        reading.spawn(async move {
            let mut delays = Vec::new();
            for event in 0..events {
                tokio::time::sleep_until(begin + offset + round * event).await;
                due[number].add_permits(1); // only now, with the last event here, may the next be sent
                let data = client.next_piece(&mut response).await.unwrap().unwrap();
                let arrived = clock.elapsed();
                let data = String::from_utf8(data).unwrap();
                let sent = data.strip_prefix(&format!("data: {number} {event} ")).expect(&data);
                let sent = sent.strip_suffix("\n\n").expect(&data).parse().unwrap();
                delays.push(arrived - Duration::from_nanos(sent));
            }
            assert_eq!(client.next_piece(&mut response).await.unwrap(), None);
            delays
        });
    }
    let delays = reading.join_all().await;
    assert_eq!(delays.len(), count());
    report("first event of each stream", Spread::of(delays.iter().map(|delays| delays[0])));
    report("every event", Spread::of(delays.into_iter().flatten()));
    metrics::wait_for(program.admin, IN_FLIGHT, "", 0.0).await;
}

/// An instance whose streams begin with one event and the first half of another, and never end.
fn endless() -> Service {
    Service::start(async |request, wire| {
        let number = number(&request.start_line);
        begin(wire, "text/event-stream").await?;
        chunk(wire, format!("data: {number}\n\n").as_bytes()).await?;
        wire.stream.write_all(b"ff\r\ndata: half").await?;
        wire.until(std::future::pending()).await
    })
}

#[tokio::test]
async fn clients_that_leave_their_streams_free_the_instance_at_once() {
    let instance = endless();
    let program = in_front_of(&instance).await;
    let mut staying = open(&program).await;
    instance.wait_for_open(count()).await;
    metrics::wait_for(program.admin, IN_FLIGHT, "", count() as f64).await;
    let leaving = staying.split_off(count() / 2);
    for (streams, left) in [(leaving, staying.len()), (staying, 0)] {
        let begun = Instant::now();
        drop(streams);
        instance.wait_for_open(left).await;
        report("streams freed after", format!("{:.2?}", begun.elapsed()));
        metrics::wait_for(program.admin, IN_FLIGHT, "", left as f64).await;
    }
    lines_with(&program, "client_left").await;
}

#[tokio::test]
async fn a_killed_instance_cuts_its_streams_visibly_and_the_log_says_so() {
    let mut instance = endless();
    let program = in_front_of(&instance).await;
    let mut streams = open(&program).await;
    for (number, (client, response)) in streams.iter_mut().enumerate() {
        let event = client.next_piece(response).await.unwrap();
        assert_eq!(event, Some(format!("data: {number}\n\n").into_bytes()));
    }
    instance.kill();
    for (client, response) in &mut streams {
        let cut = client.finish(response).await.unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(response.text(), "data: half");
    }
    lines_with(&program, "truncated").await;
    assert_eq!(metrics::read(program.admin, IN_FLIGHT, "").await, 0.0);
}

/// Waits for the line of every stream, and each must have ended for `reason`.
async fn lines_with(program: &Program, reason: &str) {
    let lines = within("a line for every stream", async {
        loop {
            let lines = program.process.stdout();
            if lines.len() >= count() {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // lines are for reading, not for waiting
        }
    })
    .await;
    assert_eq!(lines.len(), count());
    for line in lines {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &reason.into()), "{line}");
    }
}
