//! What is kept of sessions is what the store would say.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use vestibule::config::{self, OnOutage};
use vestibule::session::{
    AbsentReason, Backend, MemoryStore, Resolution, Resolved, Resolver, SessionCache, Source, Store,
    TombstoneReason,
};

use super::{caching_resolver, connected, hash, id, redis_with_session, session, with_cookie};
use crate::support::redis::Redis;
use crate::support::within;

const HOUR: Duration = Duration::from_secs(3600);

fn cache() -> Arc<SessionCache> {
    let config = config::SessionCache {
        max_entries: 100,
        max_bytes: 1 << 20,
        absent_ttl: HOUR,
        max_staleness: Duration::from_secs(1),
    };
    Arc::new(SessionCache::new(&config, Some(HOUR)))
}

/// A resolver with a cache that is in step with `redis`.
struct House {
    store: Store,
    resolver: Resolver,
    watch: AbortHandle,
}

impl Drop for House {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

async fn house(redis: &Redis) -> House {
    let (config, cache) = (session(hash(&redis.url()), Some(HOUR)), cache());
    let backend = Backend::start(&config.store, &MemoryStore::new()).unwrap();
    let store = Store::open(&config.store, &backend);
    within("connection to the store", store.connected()).await;
    let followed = cache.clone();
    let watch = tokio::spawn(async move { Store::watch(&config, &backend, Some(followed)).await });
    within("the cache", async {
        while !cache.stats().fresh {
            tokio::task::yield_now().await
        }
    })
    .await;
    let resolver = caching_resolver(store.clone(), Some(HOUR), Some(cache));
    House { store, resolver, watch: watch.abort_handle() }
}

impl House {
    async fn resolve(&self, name: &str) -> Resolved {
        within("resolution", self.resolver.resolve(&with_cookie(name), OnOutage::Deny)).await
    }
}

#[tokio::test]
async fn a_session_is_read_once_and_known_from_then_on() {
    let redis = redis_with_session().await;
    let house = house(&redis).await;
    assert!(matches!(house.resolve("there").await.source, Source::Store(_)));
    for _ in 0..3 {
        let resolved = house.resolve("there").await;
        assert_eq!(resolved.source, Source::Cache);
        assert!(matches!(resolved.outcome, Resolution::Active(_)));
    }
    assert_eq!(redis.calls("pttl").await, 1);
}

#[tokio::test]
async fn a_replaced_session_stays_a_replaced_one_when_it_is_asked_for_again() {
    let redis = redis_with_session().await;
    let (one, another) = (house(&redis).await, house(&redis).await);
    one.store.write_tombstone(&id("there"), TombstoneReason::Replaced, HOUR).await.unwrap();
    for house in [one, another] {
        for _ in 0..3 {
            let resolved = house.resolve("there").await;
            assert!(
                matches!(resolved.outcome, Resolution::Absent(AbsentReason::Replaced)),
                "its client has a newer cookie: {resolved:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_id_without_a_session_is_known_until_there_is_one() {
    let redis = redis_with_session().await;
    let house = house(&redis).await;
    assert!(matches!(house.resolve("new").await.source, Source::Store(_)));
    let resolved = house.resolve("new").await;
    assert_eq!(resolved.source, Source::Cache);
    assert!(matches!(resolved.outcome, Resolution::Unknown(_)));
    redis.put_session("new", &[("user_id", "42")]).await;
    within("the new session", async {
        while !matches!(house.resolve("new").await.outcome, Resolution::Active(_)) {}
    })
    .await;
}

/// A worker that looks `there` up when told to and ends when told to; says when it is ready and when it has asked.
fn other_worker(
    config: config::Store,
    cache: Arc<SessionCache>,
    [go, leave]: [oneshot::Receiver<()>; 2],
    [ready, asked]: [oneshot::Sender<()>; 2],
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let resolver = caching_resolver(connected(&config).await, None, Some(cache));
        ready.send(()).unwrap();
        go.await.unwrap();
        tokio::spawn(async move { resolver.resolve(&with_cookie("there"), OnOutage::Deny).await });
        tokio::task::yield_now().await; // the look-up has begun
        asked.send(()).unwrap();
        leave.await.unwrap();
    });
}

#[tokio::test]
async fn a_look_up_whose_worker_ends_is_made_again_by_those_who_wait() {
    let redis = redis_with_session().await;
    let (config, cache) = (config::Store { response_timeout: HOUR, ..hash(&redis.url()) }, cache());
    let resolver = caching_resolver(connected(&config).await, None, Some(cache.clone()));
    let ((go, goes), (leave, leaves)) = (oneshot::channel(), oneshot::channel());
    let ((ready, is_ready), (asked, has_asked)) = (oneshot::channel(), oneshot::channel());
    let worker = thread::spawn(move || other_worker(config, cache, [goes, leaves], [ready, asked]));
    within("the other worker", is_ready).await.unwrap();
    redis.freeze();
    go.send(()).unwrap();
    within("its look-up", has_asked).await.unwrap();
    let cookie = with_cookie("there");
    let mut resolved = pin!(resolver.resolve(&cookie, OnOutage::Deny));
    assert!(futures_util::poll!(&mut resolved).is_pending());
    leave.send(()).unwrap();
    worker.join().unwrap();
    redis.thaw();
    let resolved = within("resolution", resolved).await;
    assert!(matches!(resolved.outcome, Resolution::Active(_)), "{resolved:?}");
    assert_eq!(redis.calls("pttl").await, 2, "asked by both workers");
}
