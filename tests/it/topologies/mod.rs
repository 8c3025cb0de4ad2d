//! Sessions in a Redis that is more than one server: found by sentinels, spread over a cluster, or among fixed
//! hosts. While servers fail and change places, an answer is right or is a 503.

mod cluster;
mod credentials;
mod hosts;
mod sentinel;

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::client::{self, Response};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

/// How long after its last answer nothing more is believed.
const DISBELIEF: Duration = Duration::from_secs(2);

async fn start(url: &str, store: &str) -> (Upstream, Vestibule) {
    let upstream =
        Upstream::start(|request| Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")))
            .await;
    let store = format!("[session.store]\nurl = \"{url}\"\n{store}");
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).workers(2).with(&store)).await;
    (upstream, proxy)
}

/// Asks as `user`, whose session has the same name; `true` for the right answer and `false` for a 503. Any other
/// answer fails the test.
async fn is_served(address: std::net::SocketAddr, user: &str) -> bool {
    let response = client::get_with(address, "/", &[("Cookie", &format!("session-id={user}"))]).await;
    match response.status {
        200 => {
            assert_eq!(response.text(), user, "somebody else or nobody was served");
            assert_eq!(response.headers.all("set-cookie"), [""; 0]);
            true
        }
        _ => {
            assert_unavailable(&response);
            false
        }
    }
}

#[track_caller]
fn assert_unavailable(response: &Response) {
    crate::forwarding::assert_problem(response, 503);
    assert_eq!(response.headers.all("set-cookie"), [""; 0], "an outage clears no cookie");
}

/// Asks as `user` until it is served, or is not.
async fn until_served(proxy: &Vestibule, user: &str, wanted: bool) {
    within(&format!("{user} served: {wanted}"), async {
        while is_served(proxy.address(), user).await != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await; // it is for asking, not for waiting
        }
    })
    .await;
}

/// Somebody who asks as these users, over and over, until asked how that went.
struct Crowd {
    stop: CancellationToken,
    task: JoinHandle<(usize, usize)>,
}

impl Crowd {
    fn start(proxy: &Vestibule, users: &[&str]) -> Self {
        let (stop, address) = (CancellationToken::new(), proxy.address());
        let (stopped, users) = (stop.clone(), users.iter().map(ToString::to_string).collect::<Vec<_>>());
        let task = tokio::spawn(async move {
            let (mut served, mut refused) = (0, 0);
            for user in users.iter().cycle() {
                match is_served(address, user).await {
                    true => served += 1,
                    false => refused += 1,
                }
                if stopped.is_cancelled() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await; // the other processes need the machine as well
            }
            (served, refused)
        });
        Self { stop, task }
    }

    /// How many were served and how many refused; fails if anything else happened.
    async fn end(self) -> (usize, usize) {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// Waits until a replica has everything that was written to `primary`.
async fn replicated(primary: &Redis, replicas: usize) {
    let acknowledged: usize = primary.command("WAIT", (replicas, 5000)).await;
    assert_eq!(acknowledged, replicas);
}
