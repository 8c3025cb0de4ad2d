//! Clients that take their time pay for it themselves.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Pace, Spread, report, scaled};
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::service::{Service, send};
use crate::support::vestibule::Program;
use crate::support::wire::{Framing, Headers};

const COUNT: usize = 200;
/// More bytes than all socket buffers on the way.
const LARGE: usize = 32 << 20;
/// How much later than configured the end may come: the connection's own look at the clock, the machine's
/// other work, and that this process must notice.
const LATE: Duration = Duration::from_secs(6);

async fn start(instance: &Service, timeouts: &str) -> Program {
    let tables = format!("[timeouts]\n{timeouts}");
    Program::start(Config::to(&[instance.address()]).workers(1).with(&tables)).await
}

/// Asks in order as long as `others` run; returns how long each answer took, without what the machine kept from it.
async fn served_while<T: 'static>(program: &Program, others: &mut JoinSet<T>) -> (Spread, Vec<T>) {
    let (mut client, mut times, mut ends) = (Client::connect(program.address).await, Vec::new(), Vec::new());
    let pace = Pace::start();
    while !others.is_empty() {
        let begun = Instant::now();
        let response = client.request("GET", "/", &[], b"").await;
        assert_eq!((response.status, response.text()), (200, "served"));
        times.push(pace.since(begun));
        while let Ok(Some(end)) = timeout(Duration::from_millis(5), others.join_next()).await {
            ends.push(end.unwrap());
        }
    }
    (Spread::of(times), ends)
}

#[tokio::test]
async fn clients_that_dribble_their_headers_are_ended_in_time_and_hold_up_nobody() {
    let limit = scaled(Duration::from_secs(1), Duration::from_secs(5));
    let instance = Service::telling(|_| "served".to_owned());
    let program = start(&instance, &format!("request_head = \"{}s\"", limit.as_secs())).await;
    let (pace, mut dribblers) = (Pace::start(), JoinSet::new());
    for number in 0..COUNT {
        let (pace, mut client) = (pace.clone(), Client::connect(program.address).await);
        dribblers.spawn(async move {
            if number % 2 == 0 {
                assert_eq!(client.request("GET", "/", &[], b"").await.status, 200);
            }
            dribble(client, pace).await
        });
    }
    let (served, ends) = served_while(&program, &mut dribblers).await;
    let answered = ends.iter().filter(|(status, _)| *status == Some(408)).count();
    assert!(ends.iter().all(|(status, _)| matches!(status, Some(408) | None)));
    let net = Spread::of(ends.iter().map(|(_, [_, net])| *net));
    let ends = Spread::of(ends.into_iter().map(|(_, [took, _])| took));
    report("dribbled headers", format!("{limit:?}: ended after: {ends}; {answered} with 408"));
    report("others meanwhile", &served);
    assert_eq!(ends.0.len(), COUNT);
    assert!(ends.at(0) > limit / 2 && net.most() < limit + LATE && served.most() < limit);
    let counted = metrics::read(program.admin, "http_requests_total", "status=\"408\"").await;
    assert!(counted >= answered as f64, "{counted} counted of {answered}");
}

/// Sends a head byte by byte until the proxy has had enough; returns its answer, if any, and after how long, with and
/// without what the machine kept from it.
async fn dribble(mut client: Client, pace: Pace) -> (Option<u16>, [Duration; 2]) {
    let begun = Instant::now();
    let endless = b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: ".iter().chain(std::iter::repeat(&b'a'));
    for byte in endless {
        if client.try_send([*byte]).await.is_err() {
            break;
        }
        match timeout(Duration::from_millis(50), client.try_response()).await {
            Ok(Ok(response)) => return (Some(response.status), [begun.elapsed(), pace.since(begun)]),
            Ok(Err(_)) => break,
            Err(_) => {}
        }
    }
    (None, [begun.elapsed(), pace.since(begun)])
}

#[tokio::test]
async fn clients_that_stop_reading_are_cut_and_slow_ones_are_not() {
    let idle = scaled(Duration::from_secs(2), Duration::from_secs(3));
    let (ending, mut ends) = mpsc::unbounded_channel();
    let pace = Pace::start();
    let instance = Service::start(async move |request, wire| match request.start_line.as_str() {
        "GET /large HTTP/1.1" => {
            let begun = Instant::now();
            let sent = send(wire, 200, &[], &"x".repeat(LARGE)).await;
            ending.send((sent.is_ok(), pace.since(begun))).unwrap();
            sent
        }
        _ => send(wire, 200, &[], "served").await,
    });
    let program = start(&instance, &format!("client_idle = \"{}ms\"", idle.as_millis())).await;
    let slow = tokio::spawn(read_slowly(large(&program).await, idle / 3));
    let mut stopped = Vec::new();
    for _ in 0..scaled(10, 100) {
        stopped.push(large(&program).await);
    }
    let (mut cuts, count) = (JoinSet::new(), stopped.len());
    cuts.spawn(async move {
        let mut times = Vec::new();
        while times.len() < count {
            match ends.recv().await {
                Some((true, _)) => {} // the slow one, which gets everything
                Some((false, took)) => times.push(took),
                None => panic!("the instance died"),
            }
        }
        times
    });
    let (served, mut cuts) = served_while(&program, &mut cuts).await;
    let cuts = Spread::of(cuts.remove(0));
    report("readers that stopped", format!("{idle:?}: cut after: {cuts}"));
    report("others meanwhile", &served);
    assert!(cuts.most() < idle + LATE && served.most() < LATE);
    for (client, response) in &mut stopped {
        assert!(client.finish(response).await.is_err(), "a cut answer looked whole");
    }
    assert_eq!(slow.await.unwrap().unwrap(), LARGE);
}

async fn large(program: &Program) -> (Client, Response) {
    let mut client = Client::connect(program.address).await;
    client.send_request("GET", "/large", &[], b"").await;
    let response = client.start_response().await;
    (client, response)
}

/// Reads in nine parts with pauses between them; returns how much came.
async fn read_slowly((mut client, mut response): (Client, Response), pause: Duration) -> io::Result<usize> {
    let mut read = 0;
    for part in 1..=8 {
        sleep(pause).await;
        while read < part * LARGE / 9 {
            read += client.next_piece(&mut response).await?.map_or(0, |piece| piece.len());
        }
    }
    client.finish(&mut response).await?;
    Ok(read + response.body.len())
}

#[tokio::test]
async fn bodies_that_pause_for_too_long_are_408_and_slow_ones_arrive() {
    let (pace, idle) = (Pace::start(), scaled(Duration::from_secs(2), Duration::from_secs(3)));
    let instance = Service::start(async |request, wire| {
        let (mut framing, mut trailers) =
            (Framing::of(&request.headers, Framing::Length(0)), Headers::default());
        while wire.piece(&mut framing, &mut trailers).await?.is_some() {}
        send(wire, 200, &[], "served").await
    });
    let program = start(&instance, &format!("client_idle = \"{}ms\"", idle.as_millis())).await;
    let mut senders = JoinSet::new();
    for number in 0..COUNT {
        let (pace, mut client) = (pace.clone(), Client::connect(program.address).await);
        let pause = if number % 2 == 0 { idle * 4 } else { idle / 3 };
        senders.spawn(async move {
            let begun = Instant::now();
            client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n").await;
            for _ in 0..9 {
                let answered = timeout(pause, client.response()).await;
                if let Ok(response) = answered {
                    return (number, response.status, begun.elapsed(), pace.since(begun));
                }
                client.send("x").await;
            }
            let status = client.response().await.status;
            (number, status, begun.elapsed(), pace.since(begun))
        });
    }
    let (served, ends) = served_while(&program, &mut senders).await;
    for (number, status, took, _) in &ends {
        let expected = if number % 2 == 0 { 408 } else { 200 };
        assert_eq!(*status, expected, "after {took:?}");
    }
    let refused = Spread::of(ends.iter().filter(|end| end.1 == 408).map(|end| end.2));
    let net = Spread::of(ends.iter().filter(|end| end.1 == 408).map(|end| end.3));
    report("bodies that paused", format!("{idle:?}: 408 after: {refused}"));
    report("others meanwhile", &served);
    assert!(refused.at(0) >= idle && net.most() < idle + LATE && served.most() < LATE);
}
