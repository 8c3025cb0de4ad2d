//! What every store promises.

use std::time::Duration;

use vestibule::config::StoreFormat;
use vestibule::session::{Lookup, MemoryStore, Store, TombstoneReason, Ttl};

use super::{connected, fields, id, redis_config, text};
use crate::support::redis::Redis;
use crate::support::within;

const HOUR: Duration = Duration::from_secs(3600);

async fn keeps_the_contract(store: Store) {
    store.ping().await.unwrap();
    is_there_until_ended(&store).await;
    knows_the_replaced_ones(&store).await;
    is_renewed_but_never_shortened(&store).await;
    is_gone_after_its_ttl_and_stays_gone(&store).await;
}

async fn ttl(store: &Store, name: &str) -> Duration {
    match store.load(&id(name), true).await.unwrap().found().unwrap().ttl {
        Ttl::Left(left) => left,
        other => panic!("{other:?}"),
    }
}

/// The user and the name in a session.
async fn loaded(store: &Store, name: &str) -> [Option<String>; 2] {
    let record = store.load(&id(name), false).await.unwrap().found().unwrap();
    ["/user_id", "/name"].map(|pointer| text(&record.contents, pointer))
}

/// Those of [`fields`].
fn written(user: &str) -> [Option<String>; 2] {
    let fields = fields(user);
    ["user_id", "name"].map(|name| fields[name].as_str().map(str::to_owned))
}

async fn is_there_until_ended(store: &Store) {
    assert_eq!(store.load(&id("a"), true).await, Ok(Lookup::Absent(None)));
    store.create(&id("a"), fields("1"), HOUR).await.unwrap();
    assert_eq!(loaded(store, "a").await, written("1"));
    let left = ttl(store, "a").await;
    assert!(left <= HOUR && left > HOUR - Duration::from_secs(60), "{left:?}");
    assert!(store.write_tombstone(&id("a"), TombstoneReason::Revoked, HOUR).await.unwrap().was_there);
    assert!(store.load(&id("a"), true).await.unwrap().found().is_none());
    assert!(!store.write_tombstone(&id("a"), TombstoneReason::Revoked, HOUR).await.unwrap().was_there);
}

async fn knows_the_replaced_ones(store: &Store) {
    store.create(&id("old"), fields("1"), HOUR).await.unwrap();
    assert!(store.write_tombstone(&id("old"), TombstoneReason::Replaced, HOUR).await.unwrap().was_there);
    store.create(&id("new"), fields("2"), HOUR).await.unwrap();
    assert_eq!(store.load(&id("old"), true).await, Ok(Lookup::Absent(Some(TombstoneReason::Replaced))));
    assert_eq!(loaded(store, "new").await, written("2"));
}

async fn is_renewed_but_never_shortened(store: &Store) {
    store.create(&id("r"), fields("1"), HOUR).await.unwrap();
    store.renew(&id("r"), 3 * HOUR).await.unwrap();
    assert!(ttl(store, "r").await > 2 * HOUR);
    store.renew(&id("r"), HOUR).await.unwrap();
    assert!(ttl(store, "r").await > 2 * HOUR);
}

async fn is_gone_after_its_ttl_and_stays_gone(store: &Store) {
    store.create(&id("short"), fields("1"), Duration::from_millis(30)).await.unwrap();
    within("expiry", async { while store.load(&id("short"), true).await.unwrap().found().is_some() {} })
        .await;
    store.renew(&id("short"), HOUR).await.unwrap();
    assert_eq!(store.load(&id("short"), true).await, Ok(Lookup::Absent(None)));
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let store = MemoryStore::new();
    let (one_worker, another) = (Store::Memory(store.clone()), Store::Memory(store));
    one_worker.create(&id("shared"), fields("1"), HOUR).await.unwrap();
    assert!(another.load(&id("shared"), false).await.unwrap().found().is_some());
    keeps_the_contract(one_worker).await;
}

#[tokio::test]
async fn redis_hashes_keep_the_contract() {
    let redis = Redis::start().await;
    keeps_the_contract(connected(&redis_config(&redis.url(), StoreFormat::Hash)).await).await;
    assert_eq!(redis.command::<String>("TYPE", "session:r").await, "hash");
}

#[tokio::test]
async fn redis_json_keeps_the_contract() {
    let redis = Redis::start().await;
    keeps_the_contract(connected(&redis_config(&redis.url(), StoreFormat::Json)).await).await;
    assert_eq!(redis.command::<String>("TYPE", "session:r").await, "string");
}

#[tokio::test]
async fn the_database_of_the_url_is_used() {
    let redis = Redis::start().await;
    let url = redis.url().replace("/0", "/3");
    let store = connected(&redis_config(&url, StoreFormat::Hash)).await;
    store.create(&id("a"), fields("1"), HOUR).await.unwrap();
    assert_eq!(redis.command::<i64>("EXISTS", "session:a").await, 0);
    let info: String = redis.command("INFO", "keyspace").await;
    assert!(info.contains("db3:keys=1,"), "{info}");
}
