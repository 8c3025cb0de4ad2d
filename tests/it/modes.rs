//! The switch: which instance a client meets, and whether its session is looked up.

use std::collections::HashSet;

use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

const AFFINITY: &str = "vestibule-affinity-app";

async fn instances() -> [Upstream; 3] {
    let named = async |name: &'static str| Upstream::answering(Reply::text(200, name)).await;
    [named("a").await, named("b").await, named("c").await]
}

async fn start(instances: &[Upstream], mode: &str, tables: &str) -> Vestibule {
    let addresses: Vec<_> = instances.iter().map(Upstream::address).collect();
    let mode = format!("[session]\nmode = \"{mode}\"");
    Vestibule::start(Config::to(&addresses).with(&mode).with(tables)).await
}

/// The `name=value` that an answer sets for the client's tie.
fn tie(response: &Response) -> Option<String> {
    let cookies = response.headers.all("set-cookie");
    let cookie = cookies.into_iter().find(|cookie| cookie.starts_with(AFFINITY))?;
    assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
    Some(cookie.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn shared_sessions_are_served_by_every_instance() {
    let (redis, instances) = (Redis::start().await, instances().await);
    redis.put_session("abc", &[("user_id", "42")]).await;
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let proxy = start(&instances, "shared", &store).await;
    for _ in 0..9 {
        let response = proxy.get("/", &[("Cookie", "session-id=abc")]).await;
        assert_eq!(tie(&response), None);
    }
    for instance in &instances {
        assert_eq!(instance.requests().len(), 3);
        for request in instance.requests() {
            assert_eq!(request.headers.get("x-user-id"), Some("42"));
        }
    }
}

#[tokio::test]
async fn sticky_clients_keep_their_instance_and_spread_out() {
    let instances = instances().await;
    let proxy = start(&instances, "sticky", "").await;
    let mut met = HashSet::new();
    for _ in 0..6 {
        let first = proxy.get("/", &[]).await;
        let cookie = tie(&first).expect("a new client is tied");
        met.insert(first.text().to_owned());
        for _ in 0..5 {
            let next = proxy.get("/", &[("Cookie", &format!("other=1; {cookie}"))]).await;
            assert_eq!(next.text(), first.text());
            assert_eq!(tie(&next), None, "a fresh tie is not renewed");
        }
    }
    assert_eq!(met.len(), 3);
}

#[tokio::test]
async fn a_client_cannot_choose_its_instance() {
    let instances = instances().await;
    let proxy = start(&instances, "sticky", "").await;
    let real = tie(&proxy.get("/", &[]).await).unwrap();
    let (start, last) = real.split_at(real.len() - 1);
    let altered = format!("{start}{}", if last == "A" { "B" } else { "A" });
    for forged in [altered.as_str(), "vestibule-affinity-app=127.0.0.1:5001", "vestibule-affinity-app="] {
        let response = proxy.get("/", &[("Cookie", forged)]).await;
        assert_eq!(response.status, 200);
        assert_ne!(tie(&response).expect("a forged tie is replaced"), forged);
    }
}

#[tokio::test]
async fn a_client_whose_instance_is_lost_is_tied_anew() {
    let mut instances = instances().await;
    let proxy = start(&instances, "sticky", "").await;
    let first = proxy.get("/", &[]).await;
    let lost = ["a", "b", "c"].iter().position(|name| *name == first.text()).unwrap();
    instances[lost].stop().await;

    let second = proxy.get("/", &[("Cookie", &tie(&first).unwrap())]).await;
    assert_eq!(second.status, 200);
    assert_ne!(second.text(), first.text());
    let cookie = tie(&second).expect("a lost client is tied anew");
    for _ in 0..5 {
        assert_eq!(proxy.get("/", &[("Cookie", &cookie)]).await.text(), second.text());
    }
}

#[tokio::test]
async fn ties_outlive_the_process_when_there_is_a_secret() {
    let instances = instances().await;
    let secret = crate::support::vestibule::write("0123456789abcdef0123456789abcdef");
    let affinity = format!("[affinity]\nsecret = \"file:{}\"", secret.path().display());
    let first = start(&instances, "sticky", &affinity).await.get("/", &[]).await;
    let cookie = tie(&first).unwrap();
    let proxy = start(&instances, "sticky", &affinity).await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/", &[("Cookie", &cookie)]).await.text(), first.text());
    }
}

#[tokio::test]
async fn a_tie_ends_by_our_clock() {
    let instances = instances().await;
    let proxy = start(&instances, "sticky", "[affinity]\nmax_age = \"1s\"").await;
    let cookie = tie(&proxy.get("/", &[]).await).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await; // ties count whole seconds
    assert!(tie(&proxy.get("/", &[("Cookie", &cookie)]).await).is_some());
}

#[tokio::test]
async fn local_is_plain_round_robin_without_sessions() {
    let (redis, instances) = (Redis::start().await, instances().await);
    redis.put_session("abc", &[("user_id", "42")]).await;
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let proxy = start(&instances, "local", &store).await;
    for _ in 0..6 {
        assert_eq!(tie(&proxy.get("/", &[("Cookie", "session-id=abc")]).await), None);
    }
    for instance in &instances {
        assert_eq!(instance.requests().len(), 2);
        for request in instance.requests() {
            assert_eq!(request.headers.get("x-user-id"), None);
            assert_eq!(request.headers.get("cookie"), Some("session-id=abc"));
        }
    }
    assert_eq!(redis.calls("pttl").await, 0);
}
