//! A store that is down or frozen: errors within the deadlines, and recovery without help.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use vestibule::session::{Death, Resolution, StoreError};

use super::{
    RESPONSE_TIMEOUT, SLACK, WAIT_TIMEOUT, connected, connection_ids, hash, id, redis_with_session, resolve,
    resolver, start, until_failed, until_loaded,
};
use crate::support::within;

/// How long a call without a connection may take; it waits for nothing.
const AT_ONCE: Duration = Duration::from_millis(50);

#[tokio::test]
async fn without_a_server_every_call_fails_at_once() {
    let store = start(&hash("redis://127.0.0.1:1/0"));
    let asked = Instant::now();
    assert_eq!(store.load(&id("there"), true).await, Err(StoreError::Disconnected));
    assert_eq!(
        store.bury(&id("there"), Death::Revoked, Duration::from_secs(3600)).await,
        Err(StoreError::Disconnected)
    );
    assert_eq!(store.ping().await, Err(StoreError::Disconnected));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    let resolution = resolve(&resolver(store, None), "there").await;
    assert!(matches!(resolution, Resolution::Unavailable(StoreError::Disconnected)));
}

#[tokio::test]
async fn a_killed_server_is_an_error_in_time_and_a_restarted_one_works_without_help() {
    let mut redis = redis_with_session().await;
    let store = connected(&hash(&redis.url())).await;
    for _ in 0..3 {
        redis.stop();
        let asked = Instant::now();
        assert_eq!(store.load(&id("there"), true).await, Err(StoreError::Disconnected));
        assert!(asked.elapsed() < RESPONSE_TIMEOUT + SLACK, "{:?}", asked.elapsed());
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
    let killed = Instant::now();
    let () = redis.command("CLIENT", ["KILL", "ID", &first[0]].as_slice()).await;
    within("reconnection", async { while !connection_ids(&redis).await.iter().any(|id| *id != first[0]) {} })
        .await;
    assert!(killed.elapsed() < SLACK, "{:?}", killed.elapsed());
    store.connected().await;
    assert!(store.load(&id("there"), true).await.unwrap().found().is_some());
}

#[tokio::test]
async fn a_frozen_server_delays_calls_to_the_deadline_and_then_not_at_all() {
    let redis = redis_with_session().await;
    let store = connected(&hash(&redis.url())).await;
    redis.freeze();
    let asked = Instant::now();
    let there = id("there");
    let answers = join_all((0..500).map(|_| store.load(&there, true))).await;
    assert!(asked.elapsed() < WAIT_TIMEOUT + RESPONSE_TIMEOUT + SLACK, "{:?}", asked.elapsed());
    for answer in answers {
        assert!(matches!(answer, Err(StoreError::Timeout | StoreError::Busy)), "{answer:?}");
    }
    until_failed(&store, StoreError::Disconnected).await;
    // One call and two pings.
    assert!(asked.elapsed() < 3 * RESPONSE_TIMEOUT + SLACK, "{:?}", asked.elapsed());
    let asked = Instant::now();
    assert_eq!(store.load(&there, true).await, Err(StoreError::Disconnected));
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    redis.thaw();
    until_loaded(&store, "there").await;
}
