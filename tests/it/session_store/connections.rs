//! Many calls over few connections.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use vestibule::config;
use vestibule::session::{Lookup, Store, StoreError};

use super::{connected, connection_ids, hash, id, impatient, redis_with_session, text};
use crate::support::redis::Redis;
use crate::support::within;

/// Longer than a test.
const HOUR: Duration = Duration::from_secs(3_600);

async fn connections(redis: &Redis) -> usize {
    connection_ids(redis).await.len()
}

#[tokio::test]
async fn dropped_calls_and_lost_connections_never_mix_up_sessions() {
    const SESSIONS: usize = 50;
    const ROUNDS: usize = 40;
    let redis = Redis::start().await;
    for number in 0..SESSIONS {
        let name = format!("s{number}");
        redis.put_session(&name, &[("user_id", &name)]).await;
    }
    let store = connected(&config::Store { in_flight: 64, ..hash(&redis.url()) }).await;
    let (mut answered, mut dropped) = (0, 0);
    for round in 0..ROUNDS {
        within("connection", store.connected()).await;
        let calls =
            (0..200).map(|call| load_or_drop(store.clone(), format!("s{}", (round + call) % SESSIONS)));
        let tasks: Vec<_> = calls.map(tokio::spawn).collect();
        if round % 8 == 7 {
            let () = redis.command("CLIENT", ["KILL", "TYPE", "normal"].as_slice()).await;
        }
        for end in join_all(tasks).await {
            match end.unwrap() {
                End::Answered => answered += 1,
                End::Dropped => dropped += 1,
                End::Failed => (),
            }
        }
    }
    assert!(answered > ROUNDS * 25 && dropped > ROUNDS * 25, "{answered} answered, {dropped} dropped");
}

enum End {
    Answered,
    Dropped,
    Failed,
}

async fn yield_times(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Half of the calls are dropped after a while, at any point of their way.
async fn load_or_drop(store: Store, name: String) -> End {
    let there = id(&name);
    let patience = async {
        match fastrand::bool() {
            true => std::future::pending().await,
            false => yield_times(fastrand::usize(0..4)).await,
        }
    };
    tokio::select! {
        biased;
        answer = store.load(&there, true) => match answer {
            Ok(Lookup::Found(record)) => {
                assert_eq!(text(&record.contents, "/user_id"), Some(name));
                End::Answered
            }
            Ok(Lookup::Absent(_) | Lookup::Unreadable(_)) => panic!("{name} is there"),
            Err(_) => End::Failed,
        },
        () = patience => End::Dropped,
    }
}

#[tokio::test]
async fn calls_beyond_the_places_wait_a_while_and_then_fail() {
    let redis = redis_with_session().await;
    let config = config::Store { in_flight: 2, max_connections: 1, ..impatient(&redis.url()) };
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
    let config = config::Store { in_flight: 1, max_connections: 1, wait_timeout: HOUR, ..hash(&redis.url()) };
    let store = connected(&config).await;
    let there = id("there");
    for answer in within("answers", join_all((0..200).map(|_| store.load(&there, true)))).await {
        assert!(matches!(answer, Ok(Lookup::Found(_))), "{answer:?}");
    }
}

#[tokio::test]
async fn calls_that_wait_for_a_place_fail_with_the_connection() {
    let mut redis = redis_with_session().await;
    let config = config::Store {
        in_flight: 1,
        max_connections: 1,
        wait_timeout: HOUR,
        response_timeout: HOUR,
        ..hash(&redis.url())
    };
    let store = connected(&config).await;
    redis.freeze();
    let there = id("there");
    let waiting = join_all((0..50).map(|_| store.load(&there, true)));
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    redis.stop();
    for answer in within("the failure", waiting).await {
        assert_eq!(answer, Err(StoreError::Disconnected));
    }
}

#[tokio::test]
async fn connections_are_added_under_load_up_to_the_limit() {
    let redis = redis_with_session().await;
    let config = config::Store {
        in_flight: 1,
        min_idle: 2,
        max_idle: 2,
        max_connections: 3,
        wait_timeout: HOUR,
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
    let store = connected(&config::Store { min_idle: 3, max_idle: 3, ..hash(&redis.url()) }).await;
    let clone = store.clone();
    within("connections", async { while connections(&redis).await != 3 {} }).await;
    drop(store);
    assert!(clone.load(&id("there"), false).await.unwrap().found().is_some());
    drop(clone);
    within("closing", async { while connections(&redis).await != 0 {} }).await;
}

#[tokio::test]
async fn an_extra_connection_is_closed_half_a_minute_after_its_last_use() {
    let redis = redis_with_session().await;
    let config = config::Store {
        in_flight: 1,
        max_connections: 2,
        wait_timeout: HOUR,
        response_timeout: HOUR,
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
    let pass = async |limit: u64| {
        let begun = Instant::now();
        while connections(&redis).await == 2 && begun.elapsed().as_secs() < limit {
            tokio::time::advance(Duration::from_millis(1100)).await;
            assert!(store.load(&there, false).await.unwrap().found().is_some());
        }
        begun.elapsed().as_secs()
    };
    pass(20).await;
    join_all((0..2).map(|_| store.load(&there, false))).await;
    let idle = pass(90).await;
    assert!((30..=40).contains(&idle), "{idle}");
    assert_eq!(connection_ids(&redis).await, kept);
    drop(release);
    assert!(holder.await.unwrap().is_err());
}

#[tokio::test]
async fn idle_connections_are_kept_up_to_the_configured_number() {
    let redis = redis_with_session().await;
    let config = config::Store {
        in_flight: 1,
        max_idle: 2,
        max_connections: 3,
        wait_timeout: HOUR,
        response_timeout: HOUR,
        ..hash(&redis.url())
    };
    let store = connected(&config).await;
    let there = id("there");
    within("further connections", async {
        while connections(&redis).await != 3 {
            join_all((0..50).map(|_| store.load(&there, false))).await;
        }
    })
    .await;
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let holder = tokio::task::spawn_blocking(move || hold.recv());
    tokio::time::pause();
    let begun = Instant::now();
    let mut fewest = 3;
    while begun.elapsed().as_secs() < 90 {
        tokio::time::advance(Duration::from_millis(1100)).await;
        // The kept one is in use; the others are not.
        assert!(matches!(store.load(&there, false).await, Ok(Lookup::Found(_))));
        fewest = fewest.min(connections(&redis).await);
    }
    assert_eq!(fewest, 2);
    drop(release);
    assert!(holder.await.unwrap().is_err());
}

#[tokio::test]
async fn an_old_connection_is_replaced_by_a_new_one_without_a_failed_call() {
    let redis = redis_with_session().await;
    let lifetime = Some(Duration::from_millis(500));
    let store = connected(&config::Store { max_lifetime: lifetime, ..hash(&redis.url()) }).await;
    let first = connection_ids(&redis).await;
    let there = id("there");
    within("another connection", async {
        while connection_ids(&redis).await.iter().any(|id| first.contains(id)) {
            assert!(matches!(store.load(&there, true).await, Ok(Lookup::Found(_))));
        }
    })
    .await;
    assert!(matches!(store.load(&there, true).await, Ok(Lookup::Found(_))));
    assert_eq!(connections(&redis).await, 1);
}
