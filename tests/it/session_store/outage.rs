//! A store that is down or frozen: errors instead of waits, and recovery without help.

use std::time::Duration;

use futures_util::future::join_all;
use vestibule::config;
use vestibule::session::{Resolution, StoreError, TombstoneReason};

use super::{
    connected, connection_ids, hash, id, impatient, redis_with_session, resolve, resolver, start,
    until_failed, until_loaded,
};
use crate::support::within;

const HOUR: Duration = Duration::from_secs(3_600);

/// Time-outs for replies and for slots that outlast a test.
fn patient(url: &str) -> config::Store {
    config::Store { response_timeout: HOUR, wait_timeout: HOUR, connect_timeout: HOUR, ..hash(url) }
}

#[tokio::test]
async fn without_a_server_every_call_fails_without_a_wait() {
    let store = start(&patient("redis://127.0.0.1:1/0"));
    let there = id("there");
    assert_eq!(within("look-up", store.load(&there, true)).await, Err(StoreError::Disconnected));
    assert_eq!(
        within("burial", store.write_tombstone(&there, TombstoneReason::Revoked, HOUR)).await,
        Err(StoreError::Disconnected)
    );
    assert_eq!(within("ping", store.ping()).await, Err(StoreError::Disconnected));
    let resolution = resolve(&resolver(store, None), "there").await;
    assert!(matches!(resolution, Resolution::Unavailable(StoreError::Disconnected)));
}

#[tokio::test]
async fn a_killed_server_is_an_error_without_a_wait_and_a_restarted_one_works_without_help() {
    let mut redis = redis_with_session().await;
    let config = config::Store { connect_timeout: Duration::from_secs(1), ..patient(&redis.url()) };
    let store = connected(&config).await;
    for _ in 0..3 {
        redis.stop();
        let failed = within("the failure", store.load(&id("there"), true)).await;
        assert_eq!(failed, Err(StoreError::Disconnected));
        redis.restart().await;
        redis.put_session("there", &[("user_id", "42")]).await;
        until_loaded(&store, "there").await;
    }
}

#[tokio::test]
async fn a_connection_lost_while_idle_is_replaced_before_it_is_needed() {
    let redis = redis_with_session().await;
    let store = connected(&hash(&redis.url())).await;
    let first = connection_ids(&redis).await;
    let () = redis.command("CLIENT", ["KILL", "ID", &first[0]].as_slice()).await;
    within("reconnection", async { while !connection_ids(&redis).await.iter().any(|id| *id != first[0]) {} })
        .await;
    store.connected().await;
    assert!(store.load(&id("there"), true).await.unwrap().found().is_some());
}

#[tokio::test]
async fn a_frozen_server_delays_calls_to_the_deadline_and_then_not_at_all() {
    let redis = redis_with_session().await;
    let store = connected(&impatient(&redis.url())).await;
    redis.freeze();
    let there = id("there");
    // A frozen server sends no reply: whatever ends, ends by a deadline.
    let answers = within("the deadline", join_all((0..500).map(|_| store.load(&there, true)))).await;
    for answer in answers {
        assert!(matches!(answer, Err(StoreError::Timeout | StoreError::Busy)), "{answer:?}");
    }
    until_failed(&store, StoreError::Disconnected).await;
    // A request that waited for a reply would report a timeout.
    for _ in 0..10 {
        assert_eq!(store.load(&there, true).await, Err(StoreError::Disconnected));
    }
    redis.thaw();
    until_loaded(&store, "there").await;
}
