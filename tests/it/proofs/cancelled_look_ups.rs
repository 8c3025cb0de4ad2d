//! Clients who leave while the store is being asked disturb nobody who stays.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{report, scaled};
use crate::support::asker::{Asker, mirror};
use crate::support::config::Config;
use crate::support::fault::{Fault, Rules};
use crate::support::metrics;
use crate::support::redis::Redis;
use crate::support::vestibule::Program;

/// Far more than the cache keeps, so that most look-ups go to the store.
const USERS: usize = 5_000;
/// Sessions that many want at the same time: these share look-ups.
const FAVOURITES: usize = 8;
const STAYING: usize = 16;
const LEAVING: usize = 32;
/// Longer than most of those who leave stay.
const LOOK_UP: Duration = Duration::from_millis(20);

fn any_user(random: &mut fastrand::Rng) -> usize {
    if random.bool() { random.usize(..FAVOURITES) } else { random.usize(..USERS) }
}

#[tokio::test]
async fn whoever_leaves_during_a_look_up_every_answer_names_its_own_user() {
    let (redis, instance) = (Redis::start().await, mirror());
    let script =
        "for n = 0, ARGV[1] - 1 do redis.call('HSET', 'session:s' .. n, 'user_id', 'user-' .. n) end";
    let () = redis.command("EVAL", (script, 0, USERS)).await;
    let fault = Fault::before(redis.address()).await;
    let tables = format!(
        "[access_log]\noutput = \"off\"\n[session.cache]\nmax_entries = 50\n\
         [session.store]\nurl = \"{}\"\nresponse_timeout = \"1m\"\nwait_timeout = \"1m\"\nin_flight = 64",
        fault.url()
    );
    let program = Program::start(Config::to(&[instance.address()]).workers(2).with(&tables)).await;
    program.wait_for_fresh_cache().await;
    fault.set(Rules { delays_look_ups: LOOK_UP, is_random: true, ..Rules::default() });

    let until = Instant::now() + scaled(Duration::from_secs(3), Duration::from_secs(60));
    let (mut staying, mut leaving) = (JoinSet::new(), JoinSet::new());
    for _ in 0..STAYING {
        staying.spawn(stay(program.address, until));
    }
    for _ in 0..LEAVING {
        leaving.spawn(leave_often(program.address, until));
    }
    let answered: usize = staying.join_all().await.into_iter().sum();
    let left: usize = leaving.join_all().await.into_iter().sum();
    report(
        "cancelled look-ups",
        format!("{answered} answered, {left} left, {} look-ups", redis.calls("pttl").await),
    );
    assert!(answered > 0 && left > 0);
    metrics::wait_for(program.admin, "client_connections", "", 0.0).await;
    metrics::wait_for(program.admin, "upstream_requests_in_flight", "", 0.0).await;
}

/// Asks as one user after the other; returns how often.
async fn stay(address: SocketAddr, until: Instant) -> usize {
    let (mut asker, mut random, mut count) = (Asker::connect(address).await, fastrand::Rng::new(), 0);
    while Instant::now() < until {
        let user = any_user(&mut random);
        let told = asker.ask(&format!("s{user}")).await;
        assert_eq!(told.user(), Some(format!("user-{user}").as_str()), "{told:?}");
        count += 1;
    }
    count
}

/// Asks and leaves, at any time within a look-up; returns how often.
async fn leave_often(address: SocketAddr, until: Instant) -> usize {
    let (mut random, mut count) = (fastrand::Rng::new(), 0);
    while Instant::now() < until {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let user = any_user(&mut random);
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: session-id=s{user}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        sleep(LOOK_UP.mul_f64(random.f64())).await;
        count += 1;
    }
    count
}
