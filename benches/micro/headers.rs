//! Reading and rebuilding the head of a request.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use vestibule::headers::claims::claims_and;
use vestibule::headers::cookie::{cookie_values, remove_cookie};
use vestibule::headers::forwarded::{self, X_FORWARDED_FOR};
use vestibule::headers::{hop_by_hop, host};

use crate::{browser_headers, cookie_line};

pub(crate) fn cookies(c: &mut Criterion) {
    let long = format!("tracking={}; {}", "x".repeat(4000), cookie_line(1));
    let lines = [("1", cookie_line(1)), ("3", cookie_line(3)), ("12", cookie_line(12)), ("4 KiB", long)];
    for (name, line) in lines {
        let headers = browser_headers(&line);
        c.bench_function(&format!("cookies/read/{name}"), |b| {
            b.iter(|| cookie_values(black_box(&headers), "session-id").last().map(<[u8]>::len));
        });
    }
    let headers = browser_headers(&cookie_line(3));
    c.bench_function("cookies/remove/3", |b| on_a_copy(b, &headers, |h| remove_cookie(h, "session-id")));
}

pub(crate) fn cleaning(c: &mut Criterion) {
    let own = ["expect", "vestibule-session", "proxy"].into_iter().chain(hop_by_hop::NAMES);
    let set = claims_and(own);
    let browser = browser_headers(&cookie_line(3));
    let mut proxied = browser.clone();
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-real-ip", "x_user_id"] {
        proxied.insert(name, HeaderValue::from_static("203.0.113.7"));
    }
    for (name, headers) in [("browser", browser), ("behind a proxy", proxied)] {
        c.bench_function(&format!("clean/copy only/{name}"), |b| on_a_copy(b, &headers, |_| ()));
        c.bench_function(&format!("clean/strip/{name}"), |b| on_a_copy(b, &headers, |h| set.strip(h)));
        c.bench_function(&format!("clean/take nominated/{name}"), |b| {
            on_a_copy(b, &headers, |h| hop_by_hop::take_nominated(h, Version::HTTP_11));
        });
        let peer = HeaderValue::from_static("198.51.100.1");
        c.bench_function(&format!("clean/append to X-Forwarded-For/{name}"), |b| {
            on_a_copy(b, &headers, |h| forwarded::append(h, &X_FORWARDED_FOR, &peer));
        });
    }
}

pub(crate) fn target(c: &mut Criterion) {
    let headers = browser_headers(&cookie_line(3));
    let uri = Uri::from_static("/console/api/apps/7f2c/chat-conversations?page=1&limit=10");
    c.bench_function("target/authority", |b| {
        b.iter(|| {
            host::authority(black_box(&headers), black_box(&uri), Version::HTTP_11)
                .map(|found| found.host.len())
        });
    });
    let encoded = Uri::from_static("/console/api/files/a%20b%C3%A9/preview");
    for (name, uri) in [("plain", uri), ("encoded", encoded)] {
        c.bench_function(&format!("target/routing path/{name}"), |b| {
            b.iter(|| host::routing_path(&Method::GET, black_box(&uri)).map(|path| path.decoded.len()));
        });
    }
}

fn on_a_copy<R>(
    b: &mut criterion::Bencher<'_>,
    headers: &HeaderMap,
    mut run: impl FnMut(&mut HeaderMap) -> R,
) {
    let changed = |mut copy: HeaderMap| {
        let result = run(&mut copy);
        (copy, result)
    };
    b.iter_batched(|| headers.clone(), changed, BatchSize::SmallInput);
}
