//! Vestibules with one secret agree on every tie, and after a scale-out only idle sessions move, at the stated pace.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep, sleep_until};

use super::{report, scaled};
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::service::Service;
use crate::support::vestibule::Program;

/// Clients that ask at the same time.
const LANES: usize = 16;

/// One who is tied.
#[derive(Clone, Default)]
struct Visitor {
    tie: String,
    instance: String,
}

impl Visitor {
    /// One request; true when another instance than before answered.
    async fn visit(&mut self, client: &mut Client) -> bool {
        let answer = client.request("GET", "/", &[("Cookie", &self.tie)], b"").await;
        assert_eq!(answer.status, 200);
        if let Some(tie) = tie(&answer) {
            self.tie = tie;
        }
        let before = std::mem::replace(&mut self.instance, answer.text().to_owned());
        !before.is_empty() && before != self.instance
    }
}

fn tie(answer: &Response) -> Option<String> {
    let cookies = answer.headers.all("set-cookie");
    let cookie = cookies.into_iter().find(|cookie| cookie.starts_with("vestibule-affinity"))?;
    Some(cookie.split(';').next().unwrap().to_owned())
}

/// Lets everybody ask once, evenly over `time`, each lane by turns through all `doors`; returns how many moved.
async fn all_visit(visitors: &mut [Visitor], doors: &[SocketAddr], time: Duration) -> usize {
    let (begun, lanes) = (Instant::now(), visitors.len().div_ceil(LANES));
    let pause = time / u32::try_from(lanes).unwrap();
    let lane = async |visitors: &mut [Visitor]| {
        let mut clients = Vec::new();
        for door in doors {
            clients.push(Client::connect(*door).await);
        }
        let (mut moved, mut due) = (0, begun);
        for (turn, visitor) in visitors.iter_mut().enumerate() {
            sleep_until(due).await;
            due += pause;
            moved += usize::from(visitor.visit(&mut clients[turn % doors.len()]).await);
        }
        moved
    };
    join_all(visitors.chunks_mut(lanes).map(lane)).await.into_iter().sum()
}

/// Lets everybody ask again and again for `time`, more than once a second; returns how many moved.
async fn all_come_again(visitors: &mut [Visitor], doors: &[SocketAddr], time: Duration) -> usize {
    let (begun, mut moved) = (Instant::now(), 0);
    while begun.elapsed() < time {
        moved += all_visit(visitors, doors, Duration::from_millis(500)).await;
    }
    moved
}

fn config(instances: &[Service], secret: &NamedTempFile, idle_over: Duration, per_second: usize) -> Config {
    let addresses: Vec<_> = instances.iter().map(Service::address).collect();
    let rebalance =
        format!("[upstream.rebalance]\nper_second = {per_second}\nidle_over = \"{}s\"", idle_over.as_secs());
    let secret = secret.path().display();
    let tables = format!("[session]\nmode = \"sticky\"\n[affinity]\nsecret = \"file:{secret}\"");
    Config::to(&addresses).workers(2).upstream(&rebalance).with(&tables)
}

#[tokio::test]
async fn two_vestibules_move_nobody_until_a_scale_out_and_then_only_who_is_idle() {
    let (visitors, hops) = scaled((400, 4), (10_000, 6));
    let (per_second, idle_over) = scaled((20, 2), (100, 8));
    let idle_over = Duration::from_secs(idle_over);
    let mut secret = NamedTempFile::new().unwrap();
    secret.write_all(&[b'x'; 32]).unwrap();
    let instances = ["a", "b", "c", "d"].map(|name| Service::telling(move |_| name.to_owned()));
    let two = config(&instances[..2], &secret, idle_over, per_second);
    let programs = [Program::start(two.clone()).await, Program::start(two).await];
    let doors = programs.each_ref().map(|program| program.address);

    let mut visitors = vec![Visitor::default(); visitors];
    for hop in 0..=hops {
        // Each hop goes through the other door.
        let doors = [doors[hop % 2], doors[(hop + 1) % 2]];
        assert_eq!(all_visit(&mut visitors, &doors, Duration::ZERO).await, 0);
    }
    report("hops", format!("{} clients, {hops} hops each between two vestibules, 0 moved", visitors.len()));

    // Whole seconds are compared, so those who were tied in this one were not tied before.
    sleep(Duration::from_millis(1100)).await;
    let four = config(&instances, &secret, idle_over, per_second);
    for program in &programs {
        program.configure(&four);
        program.reload("the configuration was reloaded").await;
    }
    let busy_count = visitors.len() / 10;
    let (busy, idle) = visitors.split_at_mut(busy_count);
    // Those who are busy come again and again, while the others stay away.
    let mut busy_moved = all_come_again(busy, &doors, idle_over * 2).await;
    let (time, half) = (scaled(Duration::from_secs(2), Duration::from_secs(10)), idle.len() / 2);
    let begun = Instant::now();
    let (one_door, moved_back) = (&doors[..1], idle.split_at_mut(half).0);
    let (moved, still_busy) =
        tokio::join!(all_visit(moved_back, one_door, time), all_come_again(busy, &doors, time));
    let took = begun.elapsed();
    busy_moved += still_busy;
    let due = half / 2;
    let figures = format!(
        "2 to 4 instances, {per_second} per second: {moved} of {half} idle sessions moved in {took:.1?} ({due} are \
         to move in the end); {busy_moved} of {busy_count} busy ones"
    );
    report("scale-out", figures);
    assert_eq!(busy_moved, 0);
    let most = per_second as f64 * (took.as_secs_f64() + 1.0);
    assert!(moved as f64 <= most + 1.0, "{moved} moved, at most {most} may");
    assert!(moved as f64 >= per_second as f64 * time.as_secs_f64() * 0.8, "{moved} moved");
    // Who is moved stays there.
    sleep(Duration::from_millis(100)).await;
    let (settled, again) = (idle.split_at_mut(half).0, &doors);
    assert_eq!(all_visit(settled, again, Duration::ZERO).await, 0);
}
