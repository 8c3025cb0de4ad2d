//! Many calls over few connections.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, timeout};
use vestibule::config;
use vestibule::session::{Store, StoreError};

use super::{connected, connection_ids, hash, id, redis_with_session};
use crate::support::redis::Redis;
use crate::support::within;

async fn connections(redis: &Redis) -> usize {
    connection_ids(redis).await.len()
}

#[tokio::test]
async fn dropped_calls_and_lost_connections_never_mix_up_sessions() {
    const SESSIONS: usize = 50;
    let redis = Redis::start().await;
    for number in 0..SESSIONS {
        let name = format!("s{number}");
        redis.put_session(&name, &[("user_id", &name)]).await;
    }
    let store = connected(&config::Store { in_flight: 64, ..hash(&redis.url()) }).await;
    let (mut answered, mut dropped) = (0, 0);
    for round in 0..40 {
        if round % 8 == 7 {
            let () = redis.command("CLIENT", ["KILL", "TYPE", "normal"].as_slice()).await;
        }
        let calls =
            (0..200).map(|call| load_or_drop(store.clone(), format!("s{}", (round + call) % SESSIONS)));
        for task in calls.map(tokio::spawn).collect::<Vec<_>>() {
            match task.await.unwrap() {
                Some(()) => answered += 1,
                None => dropped += 1,
            }
        }
    }
    assert!(answered > 500 && dropped > 500, "{answered} answered, {dropped} dropped");
}

/// Whether the call was answered before it was dropped.
async fn load_or_drop(store: Store, name: String) -> Option<()> {
    let patience = Duration::from_micros(fastrand::u64(0..4000));
    match timeout(patience, store.load(&id(&name), true)).await {
        Ok(Ok(Some(record))) => {
            assert_eq!(record.fields.get("user_id"), Some(&json!(name)));
            Some(())
        }
        Ok(Ok(None)) => panic!("{name} is there"),
        Ok(Err(_)) | Err(_) => None,
    }
}

#[tokio::test]
async fn calls_beyond_the_places_wait_a_while_and_then_fail() {
    let redis = redis_with_session().await;
    let config = config::Store { in_flight: 2, max_connections: 1, ..hash(&redis.url()) };
    let store = connected(&config).await;
    redis.freeze();
    let there = id("there");
    let mut answers = join_all((0..3).map(|_| store.load(&there, false))).await;
    answers.sort_by_key(|answer| *answer != Err(StoreError::Busy));
    assert_eq!(answers, [Err(StoreError::Busy), Err(StoreError::Timeout), Err(StoreError::Timeout)]);
}

#[tokio::test]
async fn calls_beyond_the_places_get_the_next_free_one() {
    let redis = redis_with_session().await;
    let config = config::Store {
        in_flight: 1,
        max_connections: 1,
        wait_timeout: Duration::from_secs(5),
        ..hash(&redis.url())
    };
    let store = connected(&config).await;
    let there = id("there");
    for answer in join_all((0..200).map(|_| store.load(&there, true))).await {
        assert!(matches!(answer, Ok(Some(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn connections_are_added_under_load_up_to_the_limit() {
    let redis = redis_with_session().await;
    let config = config::Store {
        in_flight: 1,
        min_connections: 2,
        max_connections: 3,
        wait_timeout: Duration::from_secs(5),
        ..hash(&redis.url())
    };
    let store = connected(&config).await;
    within("the kept connections", async { while connections(&redis).await != 2 {} }).await;
    let there = id("there");
    let load = || join_all((0..50).map(|_| store.load(&there, false)));
    within("another connection", async {
        while connections(&redis).await != 3 {
            load().await;
        }
    })
    .await;
    for _ in 0..20 {
        load().await;
        assert_eq!(connections(&redis).await, 3);
    }
}

#[tokio::test]
async fn dropping_the_last_clone_closes_the_connections() {
    let redis = redis_with_session().await;
    let store = connected(&config::Store { min_connections: 3, ..hash(&redis.url()) }).await;
    let clone = store.clone();
    within("connections", async { while connections(&redis).await != 3 {} }).await;
    drop(store);
    assert!(clone.load(&id("there"), false).await.unwrap().is_some());
    drop(clone);
    within("closing", async { while connections(&redis).await != 0 {} }).await;
}

#[tokio::test]
async fn an_extra_connection_that_nobody_needs_is_closed_after_half_a_minute() {
    let redis = redis_with_session().await;
    let config = config::Store {
        in_flight: 1,
        max_connections: 2,
        wait_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        ..hash(&redis.url())
    };
    let store = connected(&config).await;
    let kept = connection_ids(&redis).await;
    let there = id("there");
    within("another connection", async {
        while connections(&redis).await != 2 {
            join_all((0..50).map(|_| store.load(&there, false))).await;
        }
    })
    .await;

    // While a blocking task runs, a paused clock moves only when told to, not past answers on their way.
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let holder = tokio::task::spawn_blocking(move || hold.recv());
    tokio::time::pause();
    let paused = Instant::now();
    while connections(&redis).await == 2 && paused.elapsed() < Duration::from_secs(90) {
        tokio::time::advance(Duration::from_millis(1100)).await;
        assert!(store.load(&there, false).await.unwrap().is_some());
    }
    let seconds = paused.elapsed().as_secs();
    assert!((30..=40).contains(&seconds), "{seconds}");
    assert_eq!(connection_ids(&redis).await, kept);
    drop(release);
    assert!(holder.await.unwrap().is_err());
}
