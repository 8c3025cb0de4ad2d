//! From a request's headers to its session, without a network.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use serde_json::json;
use vestibule::config::OnOutage;
use vestibule::identity::Identity;
use vestibule::session::{Fields, IdReader, MemoryStore, Resolver, SessionId, SharedState, Store};

use crate::{browser_headers, config, cookie_line, session_id};

/// A session as applications keep them: about 500 bytes as JSON.
pub(crate) fn fields() -> Fields {
    let value = json!({
        "user_id": "10042", "name": "Ada Lovelace", "email": "ada@example.com", "expires": 4_102_444_800u64,
        "roles": ["admin", "editor", "billing"], "tenant": {"id": "t-7f2c", "name": "Analytical Engines"},
        "csrf": "b3BlbiBzZXNhbWUgYnV0IG5vdCBmb3IgZXZlcnlvbmU", "locale": "en-GB", "theme": "dark",
        "workspace": "7f2c9e1d-5a4b-4c3d-8e2f-1a0b9c8d7e6f", "last_login": "2026-01-02T03:04:05Z",
        "flags": {"beta": true, "tour_done": false, "limit": 250}, "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
    });
    Fields::from_iter(value.as_object().unwrap().clone())
}

pub(crate) fn ids(c: &mut Criterion) {
    let reader = IdReader::new(&config("").session);
    for count in [1, 3, 12] {
        let headers = browser_headers(&cookie_line(count));
        c.bench_function(&format!("session/id of {count} cookies"), |b| {
            b.iter(|| reader.read(black_box(&headers)).is_ok());
        });
    }
}

pub(crate) fn resolution(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Store::Memory(MemoryStore::new());
    runtime.block_on(async {
        for number in 0..10_000 {
            let id = SessionId::new(&session_id(number));
            store.create(&id, fields(), Duration::from_secs(3600)).await.unwrap();
        }
    });
    let config = config("");
    let resolver = Resolver::new(
        &config.session,
        store,
        None,
        Arc::new(SharedState::new(&config.session)),
        Arc::new(Identity::new(&config.identity)),
    );
    let headers = browser_headers(&cookie_line(3));
    c.bench_function("session/resolve in memory", |b| {
        b.iter(|| runtime.block_on(resolver.resolve(black_box(&headers), OnOutage::Deny)));
    });
}

/// What the store's codec does with a session that is JSON.
pub(crate) fn decoding(c: &mut Criterion) {
    let text = serde_json::to_vec(&fields()).unwrap();
    c.bench_function(&format!("session/decode {} bytes of JSON", text.len()), |b| {
        b.iter(|| serde_json::from_slice::<Fields>(black_box(&text)).is_ok());
    });
}
