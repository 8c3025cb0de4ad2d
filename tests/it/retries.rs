//! A request that one instance fails goes to another exactly when that can do no harm.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::forwarding::assert_problem;
use crate::support::RefusedPort;
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;

const RETRIES: &str = "upstream_retries_total";
const HEDGES: &str = "upstream_hedges_total";
const EXHAUSTED: &str = "upstream_retry_budget_exhausted_total";

/// Two instances, of which the first is asked first, and the lines of `[upstream.retry]`.
async fn in_front_of(first: &Upstream, second: &Upstream, retry: &str) -> Vestibule {
    let retry = format!("[upstream.retry]\n{retry}");
    Vestibule::start(Config::to(&[first.address(), second.address()]).upstream(&retry)).await
}

/// Answers everything.
async fn good() -> Upstream {
    Upstream::answering(Reply::text(200, "good")).await
}

async fn saying(status: u16) -> Upstream {
    Upstream::answering(Reply::text(status, "bad")).await
}

async fn request(proxy: &Vestibule, method: &str, target: &str, body: &[u8]) -> Response {
    proxy.connect().await.request(method, target, &[], body).await
}

fn seen(upstreams: [&Upstream; 2]) -> [usize; 2] {
    upstreams.map(|upstream| upstream.requests().len())
}

#[tokio::test]
async fn an_idempotent_request_whose_instance_breaks_is_answered_by_another() {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for reply in [Reply::after_body().close(), Reply::after_body().reset()] {
            let (bad, good) = (Upstream::answering(reply).await, good().await);
            let proxy = in_front_of(&bad, &good, "").await;
            let headers = [("X-Two", "1"), ("X-Two", "2"), ("Cookie", "a=b")];
            let response = proxy.connect().await.request(method, "/a?b", &headers, b"").await;
            assert_eq!(response.status, 200, "{method}");
            let (first, second) = (bad.only_request(), good.only_request());
            assert_eq!(
                (&first.method, &first.target, &first.headers),
                (&second.method, &second.target, &second.headers)
            );
            assert_eq!(proxy.metric(RETRIES, "reason=\"broken\"").await, 1.0);
        }
    }
}

#[tokio::test]
async fn what_is_not_idempotent_or_has_a_body_is_sent_once() {
    for (method, body) in
        [("POST", ""), ("PATCH", ""), ("BREW", ""), ("POST", "x"), ("PUT", "x"), ("GET", "x")]
    {
        let (bad, good) = (Upstream::answering(Reply::after_body().close()).await, good().await);
        let proxy = in_front_of(&bad, &good, "on = [\"broken\", \"timeout\", \"502\", \"503\"]").await;
        let response = request(&proxy, method, "/", body.as_bytes()).await;
        assert_problem(&response, 502);
        assert_eq!(seen([&bad, &good]), [1, 0], "{method} {body}");

        let (bad, good) = (saying(503).await, self::good().await);
        let proxy = in_front_of(&bad, &good, "").await;
        let response = request(&proxy, method, "/", body.as_bytes()).await;
        assert_eq!((response.status, response.text()), (503, "bad"));
        assert_eq!(seen([&bad, &good]), [1, 0], "{method} {body}");
    }
}

#[tokio::test]
async fn what_could_not_be_sent_goes_to_another_whatever_it_is_and_takes_no_budget() {
    let (gone, good) = (RefusedPort::new(), good().await);
    let retry = "[upstream.retry]\nattempts = 1\nbudget = 0\nmin_per_second = 0\nnever = [\"* /\"]";
    let config = Config::to(&[gone.address(), good.address()]).upstream(retry);
    let proxy = Vestibule::start(config).await;
    assert_eq!(request(&proxy, "POST", "/", b"body").await.status, 200);
    assert_eq!(good.only_request().body, b"body");
    assert_eq!(proxy.metric(RETRIES, "reason=\"connect\"").await, 1.0);
    assert_eq!(proxy.metric(EXHAUSTED, "").await, 0.0);
}

#[tokio::test]
async fn statuses_are_asked_again_as_configured_and_the_last_answer_is_passed_on() {
    for (on, status, expected) in [
        ("", 503, (200, "good")),
        ("", 502, (200, "good")),
        ("", 504, (200, "good")),
        ("", 500, (500, "bad")),
        ("", 429, (429, "bad")),
        ("on = [\"500\", \"429\"]", 500, (200, "good")),
        ("on = [\"500\", \"429\"]", 429, (200, "good")),
        ("on = [\"500\", \"429\"]", 503, (503, "bad")),
        ("on = []", 503, (503, "bad")),
        ("attempts = 1", 503, (503, "bad")),
    ] {
        let (bad, good) = (saying(status).await, good().await);
        let proxy = in_front_of(&bad, &good, on).await;
        let response = proxy.get("/", &[]).await;
        assert_eq!((response.status, response.text()), expected, "{on} {status}");
        let retried = proxy.metric(RETRIES, &format!("reason=\"{status}\"")).await;
        assert_eq!(retried, f64::from(u8::from(expected.0 == 200)), "{on} {status}");
    }
    let (one, other) = (saying(503).await, Upstream::answering(Reply::text(503, "worse")).await);
    let proxy = in_front_of(&one, &other, "").await;
    let response = proxy.get("/", &[]).await;
    assert_eq!((response.status, response.text()), (503, "worse"));
}

#[tokio::test]
async fn no_instance_sees_a_request_twice_and_no_more_see_it_than_attempts() {
    let instances = [saying(503).await, saying(503).await, saying(503).await, saying(503).await];
    let addresses = instances.each_ref().map(Upstream::address);
    for (attempts, expected) in [(3, [0, 1, 1, 1]), (10, [1, 1, 1, 1])] {
        let before = instances.each_ref().map(|instance| instance.requests().len());
        let retry = format!("[upstream.retry]\nattempts = {attempts}");
        let proxy = Vestibule::start(Config::to(&addresses).upstream(&retry)).await;
        assert_eq!(proxy.get("/", &[]).await.status, 503);
        let mut times = instances.each_ref().map(|instance| instance.requests().len());
        times.iter_mut().zip(before).for_each(|(times, before)| *times -= before);
        times.sort_unstable();
        assert_eq!(times, expected, "{attempts} attempts");
    }
}

#[tokio::test]
async fn listed_requests_are_never_sent_again_however_their_path_is_written() {
    let (bad, good) = (saying(503).await, good().await);
    let never = "never = [\"GET /api/passport\", \"* /messages/*/more\"]";
    let proxy = in_front_of(&bad, &good, never).await;
    for (method, target) in [
        ("GET", "/api/passport"),
        ("HEAD", "/api/passport?x"),
        ("GET", "/api/%70assport"),
        ("GET", "/api//passport/deep"),
        ("DELETE", "/messages/7/more"),
    ] {
        let sent = bad.requests().len() + good.requests().len();
        let (one, other) =
            (request(&proxy, method, target, b"").await, request(&proxy, method, target, b"").await);
        assert_eq!(one.status + other.status, 703, "{method} {target}: one each");
        assert_eq!(bad.requests().len() + good.requests().len(), sent + 2);
    }
    for (method, target) in [("DELETE", "/api/passport"), ("GET", "/api/passports"), ("GET", "/messages/7")] {
        for _ in 0..2 {
            assert_eq!(request(&proxy, method, target, b"").await.status, 200, "{method} {target}");
        }
    }
}

#[tokio::test]
async fn without_budget_the_first_answer_is_passed_on_and_counted() {
    let (bad, good) = (saying(503).await, good().await);
    let proxy =
        in_front_of(&bad, &good, "budget = 0\nmin_per_second = 1\n[upstream.outlier]\nconsecutive = \"off\"")
            .await;
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(proxy.get("/", &[]).await.status);
    }
    let passed_on = statuses.iter().filter(|status| **status == 503).count();
    let retried = proxy.metric(RETRIES, "").await;
    // The minimum of ten seconds, and what comes in while the test runs.
    assert!((10.0..15.0).contains(&retried), "{retried}");
    assert_eq!(proxy.metric(EXHAUSTED, "").await, passed_on as f64);
    assert!(passed_on > 0);
}

#[tokio::test]
async fn the_connection_of_an_answer_that_is_not_wanted_is_used_again() {
    let (bad, good) = (saying(503).await, good().await);
    let proxy = in_front_of(&bad, &good, "").await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
    assert!(bad.requests().len() >= 5);
    assert_eq!(bad.connections_opened(), 1);
    assert_eq!(proxy.metric("upstream_requests_in_flight", "").await, 0.0);
}

#[tokio::test]
async fn an_unwanted_answer_that_does_not_end_closes_its_connection() {
    let endless = Reply::chunked(503, &[]).chunk("never ends").hang();
    let (bad, good) = (Upstream::answering(endless).await, good().await);
    let proxy = in_front_of(&bad, &good, "").await;
    assert_eq!(proxy.get("/", &[]).await.text(), "good");
    bad.wait_until("closed", |seen| seen.closed == 1).await;
    assert_eq!(proxy.metric("upstream_requests_in_flight", "").await, 0.0);
}

#[tokio::test]
async fn an_answer_of_known_length_that_breaks_before_its_body_is_asked_for_again() {
    let head = Reply::after_body().head(200, &[("Content-Length", "5")]);
    let (bad, good) = (Upstream::answering(head.reset()).await, good().await);
    let proxy = in_front_of(&bad, &good, "").await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/", &[]).await.text(), "good");
    }
    assert!(proxy.metric(RETRIES, "reason=\"broken\"").await >= 1.0);
}

#[tokio::test]
async fn an_answer_that_breaks_within_its_body_is_shown_as_cut() {
    let half =
        Reply::after_body().head(200, &[("Content-Length", "5")]).raw("ab").delay(Duration::from_millis(50));
    let (bad, good) = (Upstream::answering(half.reset()).await, good().await);
    let proxy = in_front_of(&bad, &good, "").await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    client.try_response().await.unwrap_err();
    assert_eq!(seen([&bad, &good]), [1, 0]);
}

#[tokio::test]
async fn the_head_of_a_stream_is_not_held_back() {
    let gate = Signal::new();
    let stream =
        Reply::chunked(200, &[("Content-Type", "text/event-stream")]).wait(&gate).chunk("data").end();
    let (first, second) = (Upstream::answering(stream.clone()).await, Upstream::answering(stream).await);
    let proxy = in_front_of(&first, &second, "").await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let mut response = client.start_response().await;
    gate.fire();
    client.finish(&mut response).await.unwrap();
    assert_eq!((response.status, response.text()), (200, "data"));
}

#[tokio::test]
async fn a_silent_instance_is_left_for_another_after_the_per_try_timeout() {
    let (silent, good) = (Upstream::answering(Reply::after_body().hang()).await, good().await);
    let proxy = in_front_of(&silent, &good, "per_try_timeout = \"100ms\"").await;
    let begun = Instant::now();
    assert_eq!(proxy.get("/", &[]).await.text(), "good");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    silent.wait_until("closed", |seen| seen.closed == 1).await;
    assert_eq!(proxy.metric(RETRIES, "reason=\"timeout\"").await, 1.0);
    assert_eq!(proxy.metric("upstream_requests_in_flight", "").await, 0.0);
}

#[tokio::test]
async fn where_nobody_else_can_be_asked_the_per_try_timeout_cuts_nothing() {
    let slow = || {
        Upstream::answering(
            Reply::after_body().delay(Duration::from_millis(300)).head(200, &[("Content-Length", "0")]),
        )
    };
    let (one, other) = (slow().await, slow().await);
    let proxy = in_front_of(&one, &other, "per_try_timeout = \"50ms\"").await;
    assert_eq!(request(&proxy, "POST", "/", b"x").await.status, 200);
    assert_eq!(proxy.metric(RETRIES, "").await, 0.0);
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_eq!(proxy.metric(RETRIES, "").await, 1.0);
    let proxy = in_front_of(&one, &other, "per_try_timeout = \"50ms\"\nbudget = 0\nmin_per_second = 0").await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_eq!(proxy.metric(RETRIES, "").await, 0.0);
}

#[tokio::test]
async fn the_per_try_timeout_does_not_count_the_wait_for_a_slot() {
    let busy_by_posts = || {
        Upstream::start(|request| match request.method.as_str() {
            "POST" => {
                let head = Reply::after_body().delay(Duration::from_millis(2_500));
                head.head(200, &[("Content-Length", "0")])
            }
            _ => Reply::text(200, "good"),
        })
    };
    let (one, other) = (busy_by_posts().await, busy_by_posts().await);
    let lines = "max_requests = 1\n[upstream.retry]\nper_try_timeout = \"2s\"";
    let proxy = Vestibule::start(Config::to(&[one.address(), other.address()]).upstream(lines)).await;
    let waiting = async {
        one.wait_until("a request", |seen| seen.requests.len() == 1).await;
        other.wait_until("a request", |seen| seen.requests.len() == 1).await;
        proxy.get("/", &[]).await
    };
    let (_, _, answer) =
        tokio::join!(request(&proxy, "POST", "/", b"x"), request(&proxy, "POST", "/", b"x"), waiting);
    assert_eq!(answer.text(), "good");
    assert_eq!(proxy.metric(RETRIES, "").await, 0.0);
}

#[tokio::test]
async fn the_total_timeout_bounds_all_attempts_and_the_wait_for_a_slot() {
    let silent = || Upstream::answering(Reply::after_body().hang());
    let (one, other) = (silent().await, silent().await);
    let proxy = in_front_of(&one, &other, "per_try_timeout = \"100ms\"\ntotal_timeout = \"2s\"").await;
    let begun = Instant::now();
    let response = proxy.get("/", &[]).await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_problem(&response, 504);
    assert_eq!(response.json()["limit"], "upstream.retry.total_timeout");
    assert_eq!(seen([&one, &other]), [1, 1]);
    other.wait_until("closed", |seen| seen.closed == 1).await;

    let only = Upstream::answering(Reply::chunked(200, &[]).chunk("never ends").hang()).await;
    let retry = "max_requests = 1\n[upstream.retry]\ntotal_timeout = \"2s\"";
    let proxy = Vestibule::start(Config::to(&[only.address()]).upstream(retry)).await;
    let mut holding = proxy.connect().await;
    holding.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(holding.start_response().await.status, 200);
    let response = proxy.get("/", &[]).await;
    assert_eq!((response.status, &response.json()["limit"]), (504, &"upstream.retry.total_timeout".into()));
    assert_eq!(only.requests().len(), 1);
}

#[tokio::test]
async fn the_total_timeout_cuts_no_stream_and_no_upload() {
    let slow = Reply::chunked(200, &[]).chunk("a").delay(Duration::from_millis(2_100)).chunk("b").end();
    let (one, other) = (Upstream::answering(slow.clone()).await, Upstream::answering(slow).await);
    let proxy = in_front_of(&one, &other, "total_timeout = \"2s\"").await;
    assert_eq!(proxy.get("/", &[]).await.text(), "ab");
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\n").await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await; // longer in all than the total timeout
        client.send("x").await;
    }
    assert_eq!(client.response().await.text(), "ab");
}

#[tokio::test]
async fn a_tied_client_is_sent_elsewhere_by_a_broken_instance_but_not_by_a_busy_one() {
    for (trouble, moves) in [
        (Reply::text(503, "busy"), false),
        (Reply::after_body().delay(Duration::from_millis(200)).head(200, &[("Content-Length", "0")]), false),
        (Reply::after_body().close(), true),
    ] {
        let gated = |name: &'static str, trouble: Reply| {
            Upstream::start(move |request| match request.target.as_str() {
                "/" => Reply::text(200, name),
                _ => trouble.clone(),
            })
        };
        let (a, b) = (gated("a", trouble.clone()).await, gated("b", Reply::text(200, "b")).await);
        let config = Config::to(&[a.address(), b.address()])
            .upstream("[upstream.retry]\nper_try_timeout = \"50ms\"\n[upstream.hedge]\nafter = \"20ms\"")
            .with("[session]\nmode = \"sticky\"");
        let proxy = Vestibule::start(config).await;
        let mut first = proxy.get("/", &[]).await;
        while first.text() != "a" {
            first = proxy.get("/", &[]).await;
        }
        let cookie = first.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        // Those that were not tied yet may have been asked again.
        let before = (proxy.metric(RETRIES, "").await, proxy.metric(HEDGES, "").await);
        let answer = proxy.get("/trouble", &[("Cookie", &cookie)]).await;
        assert_eq!(answer.text() == "b", moves);
        assert_eq!(answer.headers.get("set-cookie").is_some(), moves);
        assert_eq!(proxy.metric(RETRIES, "").await, before.0 + f64::from(u8::from(moves)));
        assert_eq!(proxy.metric(HEDGES, "").await, before.1);
    }
}

#[tokio::test]
async fn where_a_hash_is_the_tie_a_busy_instance_is_not_left() {
    for (upstream, route, session) in
        [("", "single = true", ""), ("stick = { hash = \"client\" }", "", "[session]\nmode = \"sticky\"")]
    {
        let instances = [saying(503).await, saying(503).await];
        let addresses = instances.each_ref().map(Upstream::address);
        let config = Config::to(&addresses).upstream(upstream).route(route).with(session);
        let proxy = Vestibule::start(config).await;
        for _ in 0..3 {
            assert_eq!(proxy.get("/", &[]).await.status, 503);
        }
        let mut times = seen(instances.each_ref());
        times.sort_unstable();
        assert_eq!(times, [0, 3], "{upstream}{route}");
    }
}

#[tokio::test]
async fn a_request_on_a_connection_that_is_closed_at_that_moment_is_never_executed_twice() {
    // Closes connections that were idle for a time that the requests hit again and again.
    let idle = Duration::from_millis(3);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let executed = closing_after(listener, idle);
    let proxy = Vestibule::start(Config::to(&[address, good().await.address()])).await;
    let mut client = Client::connect(proxy.address()).await;
    let (mut answered, mut refused) = (0, 0);
    for number in 0..600u64 {
        let response = client.request("POST", &format!("/{number}"), &[], b"x").await;
        match response.status {
            200 => answered += 1,
            _ => refused += 1,
        }
        let jitter = Duration::from_micros(number * 37 % 1_000);
        tokio::time::sleep(idle - Duration::from_micros(500) + jitter).await; // around the moment of closing
    }
    let executed = executed.lock().unwrap();
    assert!(executed.values().all(|times| *times == 1), "{executed:?}");
    assert!(answered > 0 && answered + refused == 600);
}

type Executed = std::sync::Arc<std::sync::Mutex<std::collections::BTreeMap<String, usize>>>;

/// An instance that counts every request it reads by its first line.
fn closing_after(listener: TcpListener, idle: Duration) -> Executed {
    use crate::support::wire::{Framing, Headers, Wire};
    use tokio::io::AsyncWriteExt;
    let executed = Executed::default();
    let counting = executed.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (mut wire, counting) = (Wire::new(stream), counting.clone());
            tokio::spawn(async move {
                while let Ok(Ok(Some(head))) = tokio::time::timeout(idle, wire.head()).await {
                    *counting.lock().unwrap().entry(head.start_line).or_default() += 1;
                    let mut framing = Framing::of(&head.headers, Framing::Length(0));
                    while let Ok(Some(_)) = wire.piece(&mut framing, &mut Headers::default()).await {}
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    if wire.stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    executed
}
