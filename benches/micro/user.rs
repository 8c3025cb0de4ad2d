//! What the instance is told of the user, and how a client stays with it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use vestibule::affinity::Affinity;
use vestibule::cohort::Cohorts;
use vestibule::config::{Mode, Modes, OnOutage};
use vestibule::identity::Identity;
use vestibule::session::{MemoryStore, Resolution, Resolver, SessionId, SharedState, Store};
use vestibule::upstream::InstanceId;

use crate::session::fields;
use crate::{browser_headers, config, cookie_line, session_id};

pub(crate) fn identity(c: &mut Criterion) {
    let config = config("");
    let identity = Arc::new(Identity::new(&config.identity));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let headers = browser_headers(&cookie_line(3));
    let resolved = runtime.block_on(async {
        let store = Store::Memory(MemoryStore::new());
        let id = SessionId::new(&session_id(7));
        store.create(&id, fields(), Duration::from_secs(60)).await.unwrap();
        let resolver = Resolver::new(
            &config.session,
            store,
            None,
            Arc::new(SharedState::new(&config.session)),
            identity.clone(),
        );
        resolver.resolve(&headers, OnOutage::Deny).await
    });
    let Resolution::Active(session) = resolved.outcome else { return };
    c.bench_function(&format!("identity/{} headers", config.identity.headers.len()), |b| {
        let applied = |mut copy| {
            let applied = identity.apply(&mut copy, Some(&session)).is_ok();
            (copy, applied)
        };
        b.iter_batched(|| headers.clone(), applied, BatchSize::SmallInput);
    });
}

pub(crate) fn affinity(c: &mut Criterion) {
    let affinity = Affinity::new(&config("").affinity).unwrap();
    c.bench_function("affinity/issue", |b| {
        b.iter(|| affinity.set_cookie(black_box("app"), 3, InstanceId(7), 1, true));
    });
    let cookie = affinity.set_cookie("app", 3, InstanceId(7), 1, true).unwrap();
    let value = cookie.to_str().unwrap().split(['=', ';']).nth(1).unwrap();
    c.bench_function("affinity/read", |b| b.iter(|| affinity.read(black_box("app"), value.as_bytes())));
    c.bench_function("affinity/read a forgery", |b| {
        b.iter(|| affinity.read(black_box("other"), value.as_bytes()))
    });
}

pub(crate) fn cohorts(c: &mut Criterion) {
    let config = config("mode = { compare = { shared = 50, sticky = 50 } }");
    let Modes::Compare(shares) = config.session.mode else { return };
    let cohorts = Cohorts::new(&config.affinity, shares).unwrap();
    let (headers, id) = (browser_headers(&cookie_line(3)), session_id(7));
    c.bench_function("cohort/draw", |b| {
        b.iter(|| cohorts.choose(black_box(&headers), Some(id.as_bytes())));
    });
    let told =
        cohorts.set_cookie(vestibule::cohort::Choice { mode: Mode::Sticky, tell: true }, true).unwrap();
    let pair = told.to_str().unwrap().split(';').next().unwrap();
    let headers = browser_headers(&format!("{}; {pair}", cookie_line(3)));
    c.bench_function("cohort/keep", |b| b.iter(|| cohorts.choose(black_box(&headers), Some(id.as_bytes()))));
}
