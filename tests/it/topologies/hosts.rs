use super::{Crowd, is_served, start, until_served};
use crate::support::redis::Redis;
use crate::support::redis_sentinel::until;

/// A primary with a session and a replica that has it as well.
async fn primary_and_replica() -> (Redis, Redis) {
    let (primary, replica) = (Redis::start().await, Redis::start().await);
    let () = primary.command("CONFIG", ["SET", "repl-diskless-sync-delay", "0"].as_slice()).await;
    primary.put_session("ann", &[("user_id", "ann")]).await;
    let address = primary.address();
    let () = replica.command("REPLICAOF", (address.ip().to_string(), address.port())).await;
    until("replication", async || replica.command("EXISTS", "session:ann").await).await;
    (primary, replica)
}

#[tokio::test]
async fn whichever_host_says_that_it_is_master_is_used() {
    let (primary, replica) = primary_and_replica().await;
    let url = format!("redis://{},{}/0", replica.address(), primary.address());
    let (_upstream, proxy) = start(&url, "").await;
    until_served(&proxy, "ann", true).await;
    let crowd = Crowd::start(&proxy, &["ann"]);
    // In this order there is never more than one.
    let address = replica.address();
    let () = primary.command("REPLICAOF", (address.ip().to_string(), address.port())).await;
    until_served(&proxy, "ann", false).await;
    let () = replica.command("REPLICAOF", ("NO", "ONE")).await;
    until_served(&proxy, "ann", true).await;
    replica.put_session("bob", &[("user_id", "bob")]).await;
    assert!(is_served(proxy.address(), "bob").await);
    crowd.end().await;
}

#[tokio::test]
async fn between_two_masters_nobody_guesses() {
    let (primary, replica) = primary_and_replica().await;
    let () = replica.command("REPLICAOF", ("NO", "ONE")).await;
    let () = primary.command("REPLICAOF", ("NO", "ONE")).await;
    let (_upstream, proxy) = start(&format!("redis://{},{}", replica.address(), primary.address()), "").await;
    until_served(&proxy, "ann", true).await;
    let mut both = [primary, replica];
    let url = both[0].url();
    both[0].stop();
    until_served(&proxy, "ann", true).await;
    assert_eq!(both[0].url(), url);
}
