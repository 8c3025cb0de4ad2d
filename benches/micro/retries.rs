//! What a request costs that may be sent again, when it need not be.

use std::hint::black_box;

use criterion::Criterion;
use http::{HeaderMap, Method, Uri};
use tokio::time::Instant;
use vestibule::config::{NeverAgain, RetryBudget};
use vestibule::headers::host::routing_path;
use vestibule::upstream::Budget;

use crate::{browser_headers, cookie_line};

/// The copy of the headers that is kept, made and dropped: as lines, as it is, and as a map.
pub(crate) fn copies(c: &mut Criterion) {
    let few: HeaderMap =
        browser_headers("").into_iter().filter_map(|(name, value)| Some((name?, value))).take(4).collect();
    for (name, headers) in [("4 headers", few), ("a browser's", browser_headers(&cookie_line(3)))] {
        c.bench_function(&format!("retry/copy as lines/{name}"), |b| {
            b.iter(|| {
                let mut lines = Vec::with_capacity(1024);
                for (name, value) in black_box(&headers) {
                    lines.extend_from_slice(name.as_str().as_bytes());
                    lines.push(b':');
                    lines.extend_from_slice(value.as_bytes());
                    lines.push(b'\n');
                }
                lines.len()
            });
        });
        c.bench_function(&format!("retry/copy as a map/{name}"), |b| {
            b.iter(|| black_box(&headers).clone().len());
        });
    }
}

pub(crate) fn rules(c: &mut Criterion) {
    let (budget, rules, now) =
        (Budget::default(), RetryBudget { percent: 20, per_second: 10 }, Instant::now());
    c.bench_function("retry/budget/earn", |b| b.iter(|| budget.earn(black_box(rules), black_box(now))));
    let never: Vec<_> = ["/api/passport", "/console/api/oauth", "/messages/*/more-like-this"]
        .map(|path| NeverAgain { method: None, path: path.to_owned() })
        .into();
    let uri = Uri::from_static("/console/api/apps/7f2c/chat-conversations");
    c.bench_function("retry/never/3", |b| {
        b.iter(|| {
            let path = routing_path(&Method::GET, black_box(&uri)).unwrap();
            never.iter().any(|never| never.covers(&Method::GET, &path.decoded))
        });
    });
}
