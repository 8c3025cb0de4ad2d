//! The shipped files for the three modes, run as they are but for the addresses.

use std::collections::HashSet;

use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

/// Four instances behind the proxy that `config/<mode>.toml` describes, after eight answers to one client
/// with a session; what it was told in cookies it sent back.
struct Run {
    instances: Vec<Upstream>,
}

impl Run {
    async fn of(mode: &str) -> Self {
        let redis = Redis::start().await;
        redis.put_session("abc", &[("user_id", "42")]).await;
        let mut instances = Vec::new();
        for _ in 0..4 {
            instances.push(Upstream::answering(Reply::text(200, "ok")).await);
        }
        let proxy = Vestibule::start_text(&shipped(mode, &redis, &instances)).await;
        proxy.wait_for_metric("upstream_instance_up", "", 4.0).await;
        let mut cookie = "session-id=abc".to_owned();
        for _ in 0..8 {
            let response = proxy.get("/page", &[("Cookie", &cookie)]).await;
            assert_eq!(response.status, 200);
            for set in response.headers.all("set-cookie") {
                cookie = format!("session-id=abc; {}", set.split(';').next().unwrap());
            }
        }
        Self { instances }
    }

    /// How many of the eight each instance answered.
    fn shares(&self) -> Vec<usize> {
        self.users().iter().map(Vec::len).collect()
    }

    /// The user that each instance was told, per request.
    fn users(&self) -> Vec<Vec<Option<String>>> {
        let pages = |instance: &Upstream| {
            let requests = instance.requests().into_iter().filter(|request| request.target == "/page");
            requests.map(|request| request.headers.get("x-user-id").map(str::to_owned)).collect()
        };
        self.instances.iter().map(pages).collect()
    }
}

/// The shipped file with this machine's free addresses in place of the fixed ones.
fn shipped(mode: &str, redis: &Redis, instances: &[Upstream]) -> String {
    let path = format!("{}/config/{mode}.toml", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(path).unwrap();
    let mut replace = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in {mode}.toml");
        text = text.replace(from, to);
    };
    replace("127.0.0.1:8080", "127.0.0.1:0");
    replace("127.0.0.1:9901", "127.0.0.1:0");
    replace("redis://127.0.0.1:6379/0", &redis.url());
    for (port, instance) in (5001..).zip(instances) {
        replace(&format!("127.0.0.1:{port}"), &instance.address().to_string());
    }
    text
}

fn told(run: &Run) -> HashSet<Option<String>> {
    run.users().into_iter().flatten().collect()
}

#[tokio::test]
async fn shared_serves_a_session_from_every_instance_in_turn() {
    let run = Run::of("shared").await;
    assert_eq!(run.shares(), [2, 2, 2, 2]);
    assert_eq!(told(&run), HashSet::from([Some("42".to_owned())]));
}

#[tokio::test]
async fn sticky_keeps_a_client_on_one_instance() {
    let run = Run::of("sticky").await;
    let mut shares = run.shares();
    shares.sort_unstable();
    assert_eq!(shares, [0, 0, 0, 8]);
    assert_eq!(told(&run), HashSet::from([None]));
}

#[tokio::test]
async fn local_takes_turns_and_tells_nobody_who_the_user_is() {
    let run = Run::of("local").await;
    assert_eq!(run.shares(), [2, 2, 2, 2]);
    assert_eq!(told(&run), HashSet::from([None]));
}
