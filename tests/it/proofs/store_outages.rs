//! Under load, a store that dies or freezes costs its users nothing but time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Pace, Spread, report, scaled};
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;

/// Clients with a session, and as many without.
const CLIENTS: usize = 8;
/// What the default timeouts allow: a place on a connection, then one answer.
const DEADLINE: Duration = Duration::from_millis(100 + 250);
/// The longest that anything may take on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the store does, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Healthy,
    Out,
    Returning,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Frozen,
}

impl Fault {
    fn strike(self, redis: &mut Redis) {
        match self {
            Fault::Killed => redis.stop(),
            Fault::Frozen => redis.freeze(),
        }
    }

    async fn end(self, redis: &mut Redis) {
        match self {
            Fault::Killed => redis.restart().await,
            Fault::Frozen => redis.thaw(),
        }
    }
}

/// What a client has met: how long its answers took, without what the machine kept from them.
#[derive(Default)]
struct Tally {
    served: Vec<Duration>,
    refused: Vec<Duration>,
}

#[tokio::test]
async fn a_killed_store_logs_nobody_out() {
    outages(Fault::Killed).await;
}

#[tokio::test]
async fn a_frozen_store_logs_nobody_out() {
    outages(Fault::Frozen).await;
}

async fn outages(fault: Fault) {
    let mut redis = Redis::start().await;
    for user in 0..CLIENTS {
        redis.put_session(&format!("id-{user}"), &[("user_id", &format!("user-{user}"))]).await;
    }
    redis.save().await;
    let instance = Service::telling(|head| head.headers.get("x-user-id").unwrap_or("nobody").to_owned());
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session.cache]\nenabled = false\n[session.store]\nurl = \"{}\"",
        redis.url()
    );
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await;
    let pace = Pace::start();

    let (phase, phases) = watch::channel(Phase::Healthy);
    let last_refusal = Arc::new(watch::Sender::new(Instant::now()));
    let (mut members, mut guests) = (JoinSet::new(), JoinSet::new());
    for user in 0..CLIENTS {
        members.spawn(member(program.address, user, phases.clone(), last_refusal.clone(), pace.clone()));
        guests.spawn(guest(program.address, phases.clone(), pace.clone()));
    }
    for _ in 0..scaled(1, 3) {
        sleep(scaled(Duration::from_millis(200), Duration::from_secs(2))).await;
        phase.send_replace(Phase::Returning); // refusals may begin at any time from here
        fault.strike(&mut redis);
        phase.send_replace(Phase::Out);
        sleep(scaled(Duration::from_millis(700), Duration::from_secs(5))).await;
        phase.send_replace(Phase::Returning);
        fault.end(&mut redis).await;
        let begun = Instant::now();
        let recovery = recovery(&last_refusal, begun).await;
        report("recovery", format!("{fault:?}: last refusal {recovery:.2?} after the store was back"));
        phase.send_replace(Phase::Healthy);
    }
    sleep(scaled(Duration::from_millis(200), Duration::from_secs(2))).await;
    phase.send_replace(Phase::Over);

    let members = members.join_all().await;
    assert!(members.iter().all(|tally| !tally.refused.is_empty() && !tally.served.is_empty()));
    let refused = Spread::of(members.iter().flat_map(|tally| tally.refused.clone()));
    report("refusals", format!("{fault:?}: {refused} (configured: {DEADLINE:?})"));
    let served = Spread::of(members.into_iter().flat_map(|tally| tally.served));
    report("members", format!("{fault:?}: {served}"));
    let guests = Spread::of(guests.join_all().await.into_iter().flatten());
    report("guests", format!("{fault:?}: {guests}"));
    assert!(refused.most() < PATIENCE && guests.most() < PATIENCE);
}

/// Waits until nobody is refused any more; returns when that began.
async fn recovery(last_refusal: &watch::Sender<Instant>, begun: Instant) -> Duration {
    let quiet = Duration::from_millis(600);
    loop {
        let last = *last_refusal.borrow();
        if begun.max(last).elapsed() >= quiet {
            return last.saturating_duration_since(begun);
        }
        assert!(begun.elapsed() < crate::support::DEADLINE, "members are still refused");
        sleep(Duration::from_millis(20)).await; // the wait is for silence
    }
}

/// Asks with a session, again and again; every answer must be right for the time at which it was asked.
async fn member(
    address: SocketAddr,
    user: usize,
    phases: watch::Receiver<Phase>,
    last_refusal: Arc<watch::Sender<Instant>>,
    pace: Pace,
) -> Tally {
    let (cookie, name) = (format!("session-id=id-{user}"), format!("user-{user}"));
    let (mut client, mut tally) = (Client::connect(address).await, Tally::default());
    loop {
        let (before, begun) = (*phases.borrow(), Instant::now());
        if before == Phase::Over {
            return tally;
        }
        let response = client.request("GET", "/", &[("Cookie", &cookie)], b"").await;
        let (after, took) = (*phases.borrow(), begun.elapsed());
        assert_eq!(response.headers.all("set-cookie"), [""; 0], "a cookie was touched: {response:?}");
        match response.status {
            200 => {
                assert_eq!(response.text(), name);
                assert!((before, after) != (Phase::Out, Phase::Out), "served without a store");
                tally.served.push(pace.net(begun, took));
            }
            503 => {
                assert_refusal(&response);
                let is_healthy = (before, after) == (Phase::Healthy, Phase::Healthy);
                // A store that had no processor for as long as it has time is as good as none.
                assert!(
                    !is_healthy || pace.kept(begun - took, begun + took) >= DEADLINE / 2,
                    "refused without need"
                );
                tally.refused.push(pace.net(begun, took));
                last_refusal.send_replace(Instant::now());
                sleep(Duration::from_millis(1)).await; // refusals are quick; leave the machine to the others
            }
            other => panic!("{other}: {response:?}"),
        }
    }
}

fn assert_refusal(response: &Response) {
    assert_eq!(response.headers.get("content-type"), Some("application/problem+json"));
    let pause: u32 = response.headers.get("retry-after").unwrap().parse().unwrap();
    assert!(pause >= 1);
}

/// Asks without a session; the store is none of its business.
async fn guest(address: SocketAddr, phases: watch::Receiver<Phase>, pace: Pace) -> Vec<Duration> {
    let (mut client, mut times) = (Client::connect(address).await, Vec::new());
    while *phases.borrow() != Phase::Over {
        let begun = Instant::now();
        let response = client.request("GET", "/", &[("Cookie", "other=1")], b"").await;
        assert_eq!((response.status, response.text()), (200, "nobody"));
        times.push(pace.since(begun));
    }
    times
}
