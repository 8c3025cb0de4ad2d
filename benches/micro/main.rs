//! What the parts of a request cost. These only measure; the tests are elsewhere.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to measure")]

mod counters;
mod headers;
mod retries;
mod routing;
mod session;
mod store;
mod telemetry;
mod user;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, header};
use vestibule::config::{self, Config};

/// Short enough that all of them take about a minute.
fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(40)
        .nresamples(2_000)
        .without_plots()
}

criterion_group! {
    name = all;
    config = criterion();
    targets = headers::cookies, headers::cleaning, headers::target,
        routing::routes, routing::picks, retries::copies, retries::rules,
        session::ids, session::resolution, session::decoding, store::lookups,
        user::identity, user::affinity, user::cohorts,
        telemetry::numbers, telemetry::lines, counters::counters
}
criterion_main!(all);

/// A configuration with `session` as the content of its `[session]` table, further tables included.
fn config(session: &str) -> Config {
    let text = format!(
        "version = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n[session]\n{session}\n\
         [[upstream]]\nname = \"app\"\n[[upstream.instance]]\naddress = \"127.0.0.1:5001\"\n\
         [[route]]\nupstream = \"app\"\n"
    );
    config::parse(&text, "benchmark").unwrap()
}

/// The head that a browser sends on a click, with `cookie`.
fn browser_headers(cookie: &str) -> HeaderMap {
    let lines = [
        (header::HOST, "app.example.com"),
        (header::CONNECTION, "keep-alive"),
        (header::UPGRADE_INSECURE_REQUESTS, "1"),
        (
            header::USER_AGENT,
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0.0.0 Safari/537.36",
        ),
        (header::ACCEPT, "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"),
        (HeaderName::from_static("sec-ch-ua"), "\"Chromium\";v=\"142\", \"Not_A Brand\";v=\"99\""),
        (HeaderName::from_static("sec-ch-ua-mobile"), "?0"),
        (HeaderName::from_static("sec-ch-ua-platform"), "\"Linux\""),
        (HeaderName::from_static("sec-fetch-site"), "same-origin"),
        (HeaderName::from_static("sec-fetch-mode"), "navigate"),
        (HeaderName::from_static("sec-fetch-user"), "?1"),
        (HeaderName::from_static("sec-fetch-dest"), "document"),
        (header::REFERER, "https://app.example.com/apps"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        (header::ACCEPT_LANGUAGE, "en-GB,en;q=0.9,de;q=0.8"),
        (header::COOKIE, cookie),
    ];
    lines.into_iter().map(|(name, value)| (name, HeaderValue::from_str(value).unwrap())).collect()
}

/// A cookie line of `count` cookies, the last of which is the session's.
fn cookie_line(count: usize) -> String {
    let others = (1..count).map(|number| format!("preference-{number}=value-{number}; "));
    others.chain([format!("session-id={}", session_id(7))]).collect()
}

/// As long as those that vestibule makes.
fn session_id(number: usize) -> String {
    format!("{number:043}")
}
