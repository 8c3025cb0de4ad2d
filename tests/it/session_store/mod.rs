//! Sessions are read from and written to real stores; no failure of a store looks like a logout.

mod caching;
mod connections;
mod contract;
mod degraded;
mod outage;
mod refusal;
mod renewal;
mod resolution;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use regex::Regex;
use serde_json::{Map, Value, json};
use vestibule::config;
use vestibule::session::{
    Content, Contents, IdentityHeaders, IdentityMapper, Lookup, MemoryStore, Resolution, Resolver, Session,
    SessionCache, SessionId, SharedState, Store, StoreError,
};

use crate::support::redis::Redis;
use crate::support::within;

/// As long as a busy server takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn redis_config(url: &str, format: config::StoreFormat) -> config::Store {
    config::Store {
        kind: config::StoreKind::Redis(config::RedisUrl::parse(url).unwrap()),
        key_prefix: "session:".to_owned(),
        key_suffix: String::new(),
        format,
        on_outage: config::OnOutage::Deny,
        connect_timeout: Duration::from_secs(1),
        response_timeout: PATIENCE,
        min_idle: 1,
        max_idle: 1,
        max_connections: 4,
        max_lifetime: None,
        in_flight: 256,
        wait_timeout: PATIENCE,
        ca: None,
        certificate: None,
        sentinel: config::Credentials::default(),
    }
}

pub(crate) fn hash(url: &str) -> config::Store {
    redis_config(url, config::StoreFormat::Hash)
}

/// A store that is not waited for.
fn impatient(url: &str) -> config::Store {
    let (response_timeout, wait_timeout) = (Duration::from_millis(250), Duration::from_millis(100));
    config::Store { response_timeout, wait_timeout, ..hash(url) }
}

/// A store that may not be connected yet.
fn start(config: &config::Store) -> Store {
    Store::start(config, &MemoryStore::new()).unwrap()
}

pub(crate) async fn connected(config: &config::Store) -> Store {
    let store = start(config);
    within("connection to the store", store.connected()).await;
    store
}

fn resolver(store: Store, idle_timeout: Option<Duration>) -> Resolver {
    caching_resolver(store, idle_timeout, None)
}

fn caching_resolver(
    store: Store,
    idle_timeout: Option<Duration>,
    cache: Option<Arc<SessionCache>>,
) -> Resolver {
    let config = session(hash("redis://unused"), idle_timeout);
    Resolver::new(&config, store, cache, Arc::new(SharedState::new(&config)), Arc::new(Users))
}

/// Describes a session by its users.
#[derive(Debug)]
struct Users;

impl IdentityMapper for Users {
    fn ruleset_id(&self) -> u64 {
        0
    }

    fn headers(&self, contents: &Contents) -> IdentityHeaders {
        let text = text(contents, "/user_id").or_else(|| text(contents, "/user/id"));
        Ok([text.map(|text| HeaderValue::from_str(&text).unwrap())].into())
    }
}

/// What a pointer leads to that is text or a number.
fn text(contents: &Contents, pointer: &str) -> Option<String> {
    match contents.find(pointer)? {
        Content::Text(text) => Some(text.into_owned()),
        Content::Number(digits) => Some(digits.to_owned()),
        other => panic!("{other:?}"),
    }
}

/// The user that [`Users`] found.
fn user(session: &Session) -> &str {
    session.headers().unwrap()[0].as_ref().unwrap().to_str().unwrap()
}

fn session(store: config::Store, idle_timeout: Option<Duration>) -> config::Session {
    config::Session {
        mode: config::Mode::Shared.into(),
        on_absent: config::OnAbsent::Anonymous,
        on_unreadable: config::OnUnreadable::Anonymous,
        cors_preflights: config::CorsPreflights::Pass,
        idle_timeout,
        absolute_timeout: Duration::from_secs(43_200),
        id_pattern: Regex::new("^(?:[A-Za-z0-9_-]{1,128})$").unwrap().into(),
        header: None,
        renewal: config::Renewal::Async,
        cache: None,
        user: "/user_id".to_owned(),
        cookie: config::SessionCookie {
            name: "session-id".to_owned(),
            attributes: config::CookieAttributes::default(),
            max_age: Duration::from_secs(3600),
            clear: config::ClearCookie::Ended,
            hide: false,
        },
        store,
    }
}

fn with_cookie(id: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("session-id={id}")).unwrap();
    HeaderMap::from_iter([(header::COOKIE, value)])
}

async fn resolve(resolver: &Resolver, id: &str) -> Resolution {
    within("resolution", resolver.resolve(&with_cookie(id), config::OnOutage::Deny)).await.outcome
}

pub(crate) fn fields(user: &str) -> Map<String, Value> {
    json!({"user_id": user, "name": "Ärger \"x\""}).as_object().unwrap().clone()
}

fn id(text: &str) -> SessionId {
    SessionId::new(text)
}

/// Ids of the connections to `redis` over which sessions are looked up.
async fn connection_ids(redis: &Redis) -> Vec<String> {
    let list: String = redis.command("CLIENT", "LIST").await;
    let ours = list.lines().filter(|line| line.contains("name=vestibule-look-ups"));
    ours.filter_map(|line| line.strip_prefix("id=")?.split(' ').next().map(str::to_owned)).collect()
}

/// Asks for a session that is there until the store answers.
async fn until_loaded(store: &Store, there: &str) {
    within("recovery of the store", async {
        while !matches!(store.load(&id(there), false).await, Ok(Lookup::Found(_))) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Asks until the store fails with `wanted`; it must not say meanwhile that there is no session.
async fn until_failed(store: &Store, wanted: StoreError) {
    within("failure of the store", async {
        loop {
            match store.load(&id("there"), false).await {
                Err(error) if error == wanted => return,
                Ok(Lookup::Absent(_) | Lookup::Unreadable(_)) => {
                    panic!("a failing store said that there is no session")
                }
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
}

/// A Redis with a session called `there`.
async fn redis_with_session() -> Redis {
    let redis = Redis::start().await;
    redis.put_session("there", &[("user_id", "42")]).await;
    redis
}
