//! CORS preflights carry no cookies (Fetch standard), so they pass where a session is needed, unless told otherwise.

use crate::forwarding::assert_problem;
use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

const PREFLIGHT: &[(&str, &str)] =
    &[("Origin", "https://app.example"), ("Access-Control-Request-Method", "PUT"), ("X-User-Id", "evil")];

struct House {
    _redis: Redis,
    upstream: Upstream,
    proxy: Vestibule,
}

impl House {
    async fn start(session: &str, route: &str) -> Self {
        let redis = Redis::start().await;
        let upstream = Upstream::answering(Reply::after_body().head(204, &[])).await;
        let signin = "[[route]]\npath = \"/signin\"\nupstream = \"app\"\nsession = false\n";
        let tables = format!("{signin}[session]\n{session}\n[session.store]\nurl = \"{}\"", redis.url());
        let proxy = Vestibule::start(Config::to(&[upstream.address()]).route(route).with(&tables)).await;
        House { _redis: redis, upstream, proxy }
    }

    async fn options(&self, headers: &[(&str, &str)]) -> Response {
        self.proxy.connect().await.request("OPTIONS", "/", headers, b"").await
    }
}

#[tokio::test]
async fn a_preflight_passes_without_a_session_and_without_an_identity() {
    for on_absent in ["on_absent = \"unauthorized\"", "on_absent = { redirect = \"/signin\" }"] {
        let house = House::start("", on_absent).await;
        assert_eq!(house.options(PREFLIGHT).await.status, 204, "{on_absent}");
        assert_eq!(house.upstream.only_request().headers.get("x-user-id"), None);
    }
}

#[tokio::test]
async fn what_is_no_preflight_needs_its_session() {
    let house = House::start("on_absent = \"unauthorized\"", "").await;
    for headers in [&PREFLIGHT[..1], &PREFLIGHT[1..2], &[]] {
        assert_problem(&house.options(headers).await, 401);
    }
    assert_problem(&house.proxy.get("/", PREFLIGHT).await, 401);
    assert_eq!(house.upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_key_turns_it_off_for_all_routes_or_for_one() {
    let off = House::start("on_absent = \"unauthorized\"\ncors_preflights = \"deny\"", "").await;
    assert_problem(&off.options(PREFLIGHT).await, 401);
    let one = House::start("on_absent = \"unauthorized\"", "cors_preflights = \"deny\"").await;
    assert_problem(&one.options(PREFLIGHT).await, 401);
    let on = "on_absent = \"unauthorized\"\ncors_preflights = \"deny\"";
    let on = House::start(on, "cors_preflights = \"pass\"").await;
    assert_eq!(on.options(PREFLIGHT).await.status, 204);
}

#[tokio::test]
async fn a_refusal_says_how_to_be_let_in() {
    let house = House::start("on_absent = \"unauthorized\"", "").await;
    let response = house.proxy.get("/", &[]).await;
    assert_problem(&response, 401);
    assert_eq!(response.headers.all("www-authenticate"), ["Cookie cookie-name=\"session-id\""]);
}
