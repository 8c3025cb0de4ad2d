//! Servers that do not report changes: the cache then lets what it knows age.

use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

const SESSION: (&str, &str) = ("Cookie", "session-id=there");

/// Whoever is logged in as `there` is told by an instance behind a vestibule.
async fn start(redis: &Redis) -> (Upstream, Vestibule) {
    redis.put_session("there", &[("user_id", "42")]).await;
    let url = redis.url();
    let upstream =
        Upstream::start(|request| Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")))
            .await;
    let tables = format!("[session.cache]\nmax_staleness = \"300ms\"\n[session.store]\nurl = \"{url}\"");
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(&tables)).await;
    (upstream, proxy)
}

async fn ages(redis: Redis) {
    let (_upstream, proxy) = start(&redis).await;
    proxy.wait_for_metric("session_cache_fresh", "", 1.0).await;
    assert_eq!(proxy.metric("session_cache_linked", "").await, 0.0);
    assert_eq!(proxy.get("/", &[SESSION]).await.text(), "42");
    let () = redis.command("HSET", ("session:there", "user_id", "43")).await;
    within("the change", async { while proxy.get("/", &[SESSION]).await.text() != "43" {} }).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[SESSION]).await.text(), "43");
    }
    assert!(proxy.metric("session_sources_total", "source=\"cache\"").await > 0.0);
}

#[tokio::test]
async fn without_tracking_a_session_is_believed_for_max_staleness() {
    let redis = Redis::start().await;
    let () = redis.command("ACL", ("SETUSER", "default", "-client|tracking")).await;
    ages(redis).await;
}

#[tokio::test]
async fn without_resp3_a_session_is_believed_for_max_staleness() {
    ages(Redis::start_without_resp3().await).await;
}

#[tokio::test]
async fn a_server_that_reports_changes_is_linked() {
    let redis = Redis::start().await;
    let (_upstream, proxy) = start(&redis).await;
    proxy.wait_for_metric("session_cache_linked", "", 1.0).await;
}

#[tokio::test]
async fn a_renewal_that_is_forbidden_does_not_end_the_link() {
    let redis = Redis::start().await;
    let (_upstream, proxy) = start(&redis).await;
    proxy.wait_for_metric("session_cache_fresh", "", 1.0).await;
    let () = redis.command("ACL", ("SETUSER", "default", "-pexpire")).await;
    let () = redis.command("EXPIRE", ("session:there", 100)).await;
    assert_eq!(proxy.get("/", &[SESSION]).await.text(), "42");
    within("the refusal", async {
        while !redis.command::<String>("INFO", "commandstats").await.contains("cmdstat_pexpire:calls=0") {}
    })
    .await;
    let asked = redis.calls("role").await;
    within("further questions", async { while redis.calls("role").await < asked + 3 {} }).await;
    assert_eq!(redis.calls("client|tracking").await, 1, "the link began once");
}
