//! A look-up in a real Redis: the processor time of our side, system calls included.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use criterion::Criterion;
use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use vestibule::config::OnOutage;
use vestibule::identity::Identity;
use vestibule::session::{Fields, MemoryStore, Resolver, SessionId, SharedState, Store};

use crate::session::fields;
use crate::{browser_headers, config, session_id};

/// Requests at once.
const REQUESTS: usize = 64;

/// Needs `redis-server` and Linux; without them nothing is measured.
pub(crate) fn lookups(c: &mut Criterion) {
    let Some(redis) = Redis::start() else { return };
    let small = Fields::from_iter([("user_id".to_owned(), json!("10042"))]);
    for (name, format, fields) in [
        ("hash of 1 field", "hash", small),
        ("hash of 13 fields", "hash", fields()),
        ("JSON", "json", fields()),
    ] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolver = runtime.block_on(redis.resolver(format, fields));
        for at_once in [1, REQUESTS] {
            c.bench_function(&format!("store/{name}/{at_once} at once"), |b| {
                b.iter_custom(|rounds| {
                    let requests: Vec<_> = (0..at_once).map(request).collect();
                    let before = processor_time();
                    resolve_all(&runtime, &resolver, &requests, rounds);
                    (processor_time() - before) / u32::try_from(at_once).unwrap()
                });
            });
        }
    }
}

fn resolve_all(runtime: &Runtime, resolver: &Resolver, requests: &[HeaderMap], rounds: u64) {
    runtime.block_on(async {
        for _ in 0..rounds {
            join_all(requests.iter().map(|headers| resolver.resolve(headers, OnOutage::Deny))).await;
        }
    });
}

fn request(number: usize) -> HeaderMap {
    browser_headers(&format!("session-id={}", session_id(number)))
}

/// What this thread has run so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// A server of our own; dropping it ends it.
struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        let process = command.stdout(Stdio::null()).spawn().ok()?;
        Some(Redis { process, port })
    }

    /// Resolves sessions of these `fields`, of which there is one for every request.
    async fn resolver(&self, format: &str, fields: Fields) -> Resolver {
        let key = format!("{format}{}:{{id}}", fields.len());
        let config = config(&format!(
            "[session.store]\nurl = \"redis://127.0.0.1:{}/0\"\nformat = \"{format}\"\nkey = \"{key}\"",
            self.port
        ));
        let session = config.session;
        let store = Store::start(&session.store, &MemoryStore::new()).unwrap();
        store.connected().await;
        for number in 0..REQUESTS {
            let id = SessionId::new(&session_id(number));
            store.create(&id, strings(&fields, format), Duration::from_secs(3600)).await.unwrap();
        }
        Resolver::new(
            &session,
            store,
            None,
            Arc::new(SharedState::new(&session)),
            Arc::new(Identity::new(&config.identity)),
        )
    }
}

/// In a hash every value is a string.
fn strings(fields: &Fields, format: &str) -> Fields {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match format {
        "hash" => fields.iter().map(|(name, value)| (name.clone(), text(value).into())).collect(),
        _ => fields.clone(),
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It is gone already if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
