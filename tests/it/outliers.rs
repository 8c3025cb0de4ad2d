//! An instance that requests fail on is left alone for a while; what is not its fault is not held against it.

use std::sync::{Arc, Mutex};

use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

const STRICT: &str = "[upstream.outlier]\nconsecutive = 3\neject = \"3s\"";

/// Two instances, of which the answers of the first may be changed.
struct Pair {
    proxy: Vestibule,
    odd: Upstream,
    _good: Upstream,
    reply: Arc<Mutex<Reply>>,
}

impl Pair {
    async fn start(tables: &str, reply: Reply) -> Pair {
        let reply = Arc::new(Mutex::new(reply));
        let current = reply.clone();
        let odd = Upstream::start(move |_| current.lock().unwrap().clone()).await;
        let good = Upstream::answering(Reply::text(200, "good")).await;
        let config = Config::to(&[odd.address(), good.address()]).upstream(tables);
        let proxy = Vestibule::start(config.upstream("[upstream.retry]\nattempts = 1")).await;
        Pair { proxy, odd, _good: good, reply }
    }

    async fn ask(&self, times: usize) {
        for _ in 0..times {
            let mut client = self.proxy.connect().await;
            client.send_request("GET", "/", &[], b"").await;
            // It may be cut on purpose.
            let _ = client.try_response().await;
        }
    }

    async fn ejections(&self) -> f64 {
        self.proxy.metric("upstream_ejections_total", "").await
    }

    /// Asks until there are enough within one window.
    async fn ask_until_ejected_for(&self, reason: &str) {
        within(reason, async {
            while self.proxy.metric("upstream_ejections_total", reason).await == 0.0 {
                self.ask(24).await;
            }
        })
        .await;
    }

    async fn wait_until_ejected(&self, ejected: f64) {
        self.proxy.wait_for_metric("upstream_instance_condition", "condition=\"ejected\"", ejected).await;
    }
}

fn html(status: u16) -> Reply {
    Reply::with_headers(status, &[("content-type", "text/html")], "<h1>Sorry</h1>")
}

fn json(status: u16) -> Reply {
    Reply::with_headers(
        status,
        &[("content-type", "application/json")],
        "{\"code\":\"unknown\",\"status\":500}",
    )
}

#[tokio::test]
async fn who_fails_request_after_request_is_left_alone_and_comes_back() {
    let pair = Pair::start(STRICT, html(502)).await;
    pair.ask(6).await;
    pair.wait_until_ejected(1.0).await;
    let before = pair.odd.requests().len();
    assert_eq!((before, pair.ejections().await), (3, 1.0));
    pair.ask(4).await;
    assert_eq!(pair.odd.requests().len(), before);
    *pair.reply.lock().unwrap() = Reply::text(200, "fine");
    pair.wait_until_ejected(0.0).await;
    pair.ask(4).await;
    assert_eq!((pair.odd.requests().len(), pair.ejections().await), (before + 2, 1.0));
}

#[tokio::test]
async fn what_the_application_says_in_json_ejects_nobody_and_html_does() {
    let pair = Pair::start(STRICT, json(500)).await;
    for status in [500, 502, 503, 404, 429] {
        *pair.reply.lock().unwrap() = json(status);
        pair.ask(8).await;
    }
    assert_eq!((pair.odd.requests().len(), pair.ejections().await), (20, 0.0));
    *pair.reply.lock().unwrap() = html(500);
    pair.ask(6).await;
    pair.wait_until_ejected(1.0).await;
}

#[tokio::test]
async fn answers_that_break_off_eject() {
    // More than is read before the head is passed on.
    let half = "x".repeat(100_000);
    let cut = Reply::after_body().head(200, &[("content-length", "200000")]).raw(&half).close();
    let pair = Pair::start(STRICT, cut).await;
    pair.ask(6).await;
    pair.wait_until_ejected(1.0).await;
    assert_eq!(pair.odd.requests().len(), 3);
}

#[tokio::test]
async fn silence_and_resets_eject() {
    for reply in [Reply::after_body().hang(), Reply::after_body().reset()] {
        let timeouts = "[timeouts]\nfirst_byte = \"50ms\"";
        let odd = Upstream::answering(reply).await;
        let good = Upstream::answering(Reply::text(200, "good")).await;
        let config = Config::to(&[odd.address(), good.address()]).upstream(STRICT).with(timeouts);
        let proxy = Vestibule::start(config).await;
        let instance = format!("instance=\"{}\"", odd.address());
        within("an ejection", async {
            while proxy.metric("upstream_ejections_total", &instance).await == 0.0 {
                proxy.get("/", &[]).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn by_default_gateway_failures_eject_and_an_applications_do_not() {
    let pair = Pair::start("", html(500)).await;
    pair.ask(20).await;
    assert_eq!((pair.odd.requests().len(), pair.ejections().await), (10, 0.0));
    *pair.reply.lock().unwrap() = html(503);
    pair.ask(10).await;
    pair.wait_until_ejected(1.0).await;
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_ejects_nobody() {
    let pair = Pair::start(STRICT, Reply::body_back()).await;
    for seen in 1..=8 {
        let mut client = pair.proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf").await;
        let odd = seen / 2;
        pair.odd.wait_until("its share", |all| all.requests.len() >= odd).await;
    }
    pair.proxy.wait_for_metric("upstream_requests_in_flight", "", 0.0).await;
    assert_eq!((pair.odd.requests().len(), pair.ejections().await), (4, 0.0));
}

#[tokio::test]
async fn the_only_instance_is_never_ejected() {
    let upstream = Upstream::answering(html(502)).await;
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).upstream(STRICT)).await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/", &[]).await.text(), "<h1>Sorry</h1>");
    }
    assert_eq!(proxy.metric("upstream_ejections_total", "").await, 0.0);
}

#[tokio::test]
async fn a_share_of_errors_ejects_and_so_does_being_slow() {
    let windows = "[upstream.outlier]\nconsecutive = \"off\"\nwindow = \"2s\"\nmin_requests = 10\n";
    let pair = Pair::start(&format!("{windows}error_rate = 50"), html(502)).await;
    pair.ask_until_ejected_for("error_rate").await;

    let late = Reply::after_body().delay(std::time::Duration::from_millis(150));
    let late = late.head(200, &[("content-length", "0")]);
    let pair = Pair::start(&format!("{windows}latency = 3"), late).await;
    pair.ask_until_ejected_for("latency").await;
}
