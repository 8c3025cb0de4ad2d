//! What becomes of whom when an instance is drained or taken out: every cell of the table in the README, deadlines,
//! and what operators are told meanwhile.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::{within, ws};

const TOKEN: &str = "operator-token-0123456789";

/// Tells its name and the user it was told of; `/login` logs in, `/stream` pauses until the signal.
async fn instance(name: &'static str, signal: &Signal) -> Upstream {
    let signal = signal.clone();
    Upstream::start(move |request| match request.target.as_str() {
        "/login" => Reply::with_headers(200, &[("Vestibule-Session", "set; user_id=\"ada\"")], name),
        "/stream" => {
            let head = Reply::chunked(200, &[("Content-Type", "text/event-stream")]);
            head.chunk(name).wait(&signal).chunk("end").end()
        }
        _ => Reply::text(200, &format!("{name} {}", request.headers.get("x-user-id").unwrap_or("nobody"))),
    })
    .await
}

struct Scene {
    proxy: Vestibule,
    instances: [Upstream; 2],
    go_on: Signal,
}

impl Scene {
    async fn in_mode(mode: &str) -> Self {
        let go_on = Signal::new();
        let instances = [instance("a", &go_on).await, instance("b", &go_on).await];
        let addresses: Vec<_> = instances.iter().map(Upstream::address).collect();
        let proxy = start(&addresses, mode).await;
        Self { proxy, instances, go_on }
    }

    /// Tells the proxy what shall become of `a`.
    async fn order_a(&self, order: Value) -> Value {
        order_instance(&self.proxy, self.instances[0].address(), order).await
    }

    async fn set_a(&self, state: &str) {
        self.order_a(json!({ "state": state })).await;
    }

    /// What is told of `a`.
    async fn a(&self) -> Value {
        row(&self.proxy, self.instances[0].address()).await
    }

    async fn wait_for_a(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        within(what, async {
            while !holds(&self.a().await) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await; // it is for asking only
            }
        })
        .await;
    }

    /// Cookies of a session that `a` serves.
    async fn session_on_a(&self) -> String {
        loop {
            let answer = self.proxy.get("/login", &[]).await;
            let cookies = answer.headers.all("set-cookie");
            let pairs: Vec<_> = cookies.iter().map(|cookie| cookie.split(';').next().unwrap()).collect();
            if answer.text() == "a" {
                return pairs.join("; ");
            }
        }
    }

    /// Who answers six requests with these cookies, as instance and user.
    async fn answers(&self, cookies: &str) -> String {
        let mut answers = BTreeSet::new();
        for _ in 0..6 {
            let answer = self.proxy.get("/", &[("Cookie", cookies)]).await;
            assert_eq!(answer.status, 200);
            answers.insert(answer.text().to_owned());
        }
        Vec::from_iter(answers).join(", ")
    }

    /// A stream from `a` whose first piece has come.
    async fn stream_from_a(&self) -> (Client, Response) {
        loop {
            let mut client = self.proxy.connect().await;
            client.send_request("GET", "/stream", &[], b"").await;
            let mut response = client.start_response().await;
            if client.next_piece(&mut response).await.unwrap().unwrap() == b"a" {
                return (client, response);
            }
        }
    }
}

async fn start(instances: &[SocketAddr], mode: &str) -> Vestibule {
    let config = Config::to(instances)
        .token(TOKEN)
        .upstream("session_control = true")
        .with(&format!("[session]\nmode = \"{mode}\""));
    Vestibule::start(config).await
}

async fn call(proxy: &Vestibule, method: &str, body: &str) -> Response {
    let token = format!("Bearer {TOKEN}");
    let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
    let mut client = Client::connect(proxy.admin_address()).await;
    client.request(method, "/api/v1/upstreams", &headers, body.as_bytes()).await
}

async fn order_instance(proxy: &Vestibule, instance: SocketAddr, mut order: Value) -> Value {
    order["instance"] = instance.to_string().into();
    let answer = call(proxy, "POST", &order.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["upstreams"][0]["instances"][0].take()
}

async fn row(proxy: &Vestibule, instance: SocketAddr) -> Value {
    let report = call(proxy, "GET", "").await.json();
    let rows = report["upstreams"][0]["instances"].as_array().unwrap();
    rows.iter().find(|row| row["address"] == instance.to_string()).unwrap().clone()
}

async fn new_session(mode: &str, state: &str) -> String {
    let scene = Scene::in_mode(mode).await;
    scene.set_a(state).await;
    scene.answers("").await
}

async fn existing_session(mode: &str, state: &str) -> String {
    let scene = Scene::in_mode(mode).await;
    let cookies = scene.session_on_a().await;
    scene.set_a(state).await;
    scene.answers(&cookies).await
}

async fn open_stream(mode: &str, state: &str) -> String {
    let scene = Scene::in_mode(mode).await;
    let (mut client, mut response) = scene.stream_from_a().await;
    scene.set_a(state).await;
    assert_eq!(scene.a().await["streams"], 1);
    scene.go_on.fire();
    client.finish(&mut response).await.unwrap();
    response.text().to_owned()
}

/// The cells of the table: the state of instance `a` and the question are in the name.
macro_rules! cells {
    ($($name:ident: $what:ident($mode:literal, $state:literal) => $outcome:literal;)*) => {$(
        #[tokio::test]
        async fn $name() {
            assert_eq!($what($mode, $state).await, $outcome);
        }
    )*};
}

cells! {
    sticky_ready_takes_new_sessions: new_session("sticky", "ready") => "a nobody, b nobody";
    sticky_ready_serves_its_sessions: existing_session("sticky", "ready") => "a nobody";
    sticky_ready_streams_go_on: open_stream("sticky", "ready") => "end";
    sticky_drain_sends_new_sessions_to_others: new_session("sticky", "drain") => "b nobody";
    sticky_drain_serves_its_sessions: existing_session("sticky", "drain") => "a nobody";
    sticky_drain_streams_go_on: open_stream("sticky", "drain") => "end";
    sticky_down_sends_new_sessions_to_others: new_session("sticky", "down") => "b nobody";
    sticky_down_moves_its_sessions: existing_session("sticky", "down") => "b nobody";
    sticky_down_streams_go_on: open_stream("sticky", "down") => "end";
    shared_ready_takes_new_sessions: new_session("shared", "ready") => "a nobody, b nobody";
    shared_ready_serves_every_session: existing_session("shared", "ready") => "a ada, b ada";
    shared_ready_streams_go_on: open_stream("shared", "ready") => "end";
    shared_drain_sends_new_sessions_to_others: new_session("shared", "drain") => "b nobody";
    shared_drain_sessions_are_served_by_others: existing_session("shared", "drain") => "b ada";
    shared_drain_streams_go_on: open_stream("shared", "drain") => "end";
    shared_down_sends_new_sessions_to_others: new_session("shared", "down") => "b nobody";
    shared_down_sessions_are_served_by_others: existing_session("shared", "down") => "b ada";
    shared_down_streams_go_on: open_stream("shared", "down") => "end";
}

#[tokio::test]
async fn a_session_that_moved_stays_where_it_went() {
    let scene = Scene::in_mode("sticky").await;
    let cookies = scene.session_on_a().await;
    scene.set_a("down").await;
    let moved = scene.proxy.get("/", &[("Cookie", &cookies)]).await;
    let cookies = moved.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    scene.set_a("ready").await;
    assert_eq!(scene.answers(&cookies).await, "b nobody");
}

#[tokio::test]
async fn at_the_deadline_the_instance_goes_down_and_its_streams_are_kept() {
    let scene = Scene::in_mode("sticky").await;
    let (mut client, mut response) = scene.stream_from_a().await;
    let cookies = scene.session_on_a().await;
    let told = scene.order_a(json!({ "state": "drain", "deadline": "10m" })).await;
    assert_eq!((&told["deadline_seconds"], &told["then"]), (&600.into(), &"keep".into()));
    scene.order_a(json!({ "state": "drain", "deadline": "50ms" })).await;
    scene.wait_for_a("the deadline", |a| a["state"] == "down").await;
    assert_eq!(scene.answers(&cookies).await, "b nobody");
    let a = scene.a().await;
    assert_eq!((&a["requests"], &a["streams"], &a["streams_closed"]), (&1.into(), &1.into(), &0.into()));
    assert_eq!(a["deadline_seconds"], Value::Null);
    scene.go_on.fire();
    client.finish(&mut response).await.unwrap();
}

#[tokio::test]
async fn at_the_deadline_streams_are_cut_if_the_operator_wants_it_and_nobody_takes_them_for_whole() {
    let scene = Scene::in_mode("shared").await;
    let (mut client, mut response) = scene.stream_from_a().await;
    scene.order_a(json!({ "state": "drain", "deadline": "50ms", "then": "close" })).await;
    let cut = client.finish(&mut response).await.unwrap_err();
    assert_eq!(cut.kind(), ErrorKind::UnexpectedEof);
    scene.wait_for_a("nothing left", |a| a["requests"] == 0).await;
    let a = scene.a().await;
    assert_eq!((&a["state"], &a["streams_closed"]), (&"down".into(), &1.into()));
    assert_eq!(scene.proxy.metric("upstream_streams_closed_total", "").await, 1.0);
    scene.instances[0].wait_until("closed", |seen| seen.closed == seen.opened).await;
}

#[tokio::test]
async fn down_can_cut_at_once_tunnels_as_well() {
    let echo = ws::echo_server().await;
    let proxy = start(&[echo], "shared").await;
    let mut socket = ws::connect(proxy.address(), "/").await;
    ws::exchange(&mut socket, "one").await;
    let told = order_instance(&proxy, echo, json!({ "state": "down", "then": "close" })).await;
    assert_eq!((&told["state"], &told["streams_closed"]), (&"down".into(), &1.into()));
    let end = within("the end", futures_util::StreamExt::next(&mut socket)).await;
    assert!(!matches!(end, Some(Ok(_))), "{end:?}");
    proxy.wait_for_metric("upstream_requests_in_flight", "", 0.0).await;
}

#[tokio::test]
async fn another_order_takes_the_deadline_back() {
    let scene = Scene::in_mode("sticky").await;
    let (mut client, mut response) = scene.stream_from_a().await;
    scene.order_a(json!({ "state": "drain", "deadline": "3s", "then": "close" })).await;
    scene.set_a("ready").await;
    // The deadline of the other passes later.
    let b = scene.instances[1].address();
    order_instance(&scene.proxy, b, json!({ "state": "drain", "deadline": "3s", "then": "close" })).await;
    within("the deadline of the other", async {
        while row(&scene.proxy, b).await["state"] != "down" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // it is for asking only
        }
    })
    .await;
    assert_eq!(scene.a().await["state"], "ready");
    scene.go_on.fire();
    client.finish(&mut response).await.unwrap();
}

#[tokio::test]
async fn sessions_are_counted_where_they_live_and_while_they_drain() {
    let scene = Scene::in_mode("sticky").await;
    let sessions = [scene.session_on_a().await, scene.session_on_a().await, scene.session_on_a().await];
    assert_eq!(scene.a().await["sessions"], 0, "nobody has come back yet");
    for cookies in &sessions {
        scene.answers(cookies).await;
    }
    let a = scene.a().await;
    assert_eq!((&a["sessions"], &a["sessions_since_drain"]), (&3.into(), &Value::Null));
    scene.set_a("drain").await;
    scene.answers(&sessions[0]).await;
    assert_eq!(scene.a().await["sessions"], 3);
    assert_eq!(Scene::in_mode("shared").await.a().await["sessions"], Value::Null);
}

#[tokio::test]
async fn a_weight_changes_the_share_and_nothing_else() {
    let scene = Scene::in_mode("shared").await;
    let told = scene.order_a(json!({ "weight": 3 })).await;
    assert_eq!((&told["weight"], &told["state"]), (&3.into(), &"ready".into()));
    for _ in 0..40 {
        scene.proxy.get("/", &[]).await;
    }
    assert_eq!(scene.instances.each_ref().map(|instance| instance.requests().len()), [30, 10]);
    scene.order_a(json!({ "weight": 0 })).await;
    assert_eq!(scene.answers("").await, "b nobody");
}

#[tokio::test]
async fn whom_nobody_knows_is_answered_with_those_who_are_known() {
    let scene = Scene::in_mode("shared").await;
    let [a, b] = scene.instances.each_ref().map(|instance| instance.address().to_string());
    let mut known = [a.clone(), b];
    known.sort();
    for (order, detail) in [
        (
            json!({ "instance": a, "upstream": "ap", "state": "down" }),
            "there is no such upstream; there are: app".to_owned(),
        ),
        (
            json!({ "instance": "127.0.0.1:1", "state": "down" }),
            format!("there is no such instance; there are: {}", known.join(", ")),
        ),
    ] {
        let answer = call(&scene.proxy, "POST", &order.to_string()).await;
        assert_eq!((answer.status, &answer.json()["detail"]), (404, &detail.into()));
        assert_eq!(answer.headers.get("content-type"), Some("application/problem+json"));
    }
    assert_eq!(scene.a().await["state"], "ready");
}

#[tokio::test]
async fn without_the_token_nobody_sees_or_changes_anything() {
    let scene = Scene::in_mode("shared").await;
    let order = json!({ "instance": scene.instances[0].address(), "state": "down" }).to_string();
    for (method, body) in [("GET", ""), ("POST", order.as_str())] {
        let mut client = Client::connect(scene.proxy.admin_address()).await;
        let headers = [("Content-Type", "application/json")];
        let answer = client.request(method, "/api/v1/upstreams", &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 401, "{method}");
    }
    assert_eq!(scene.a().await["state"], "ready");
}

#[tokio::test]
async fn the_same_order_again_changes_nothing() {
    let scene = Scene::in_mode("sticky").await;
    let first = scene.order_a(json!({ "state": "drain" })).await;
    let again = scene.order_a(json!({ "state": "drain" })).await;
    assert_eq!(first, again);
    assert_eq!(call(&scene.proxy, "POST", "{}").await.status, 400);
}
