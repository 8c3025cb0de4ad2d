//! Every way in which a wait for a slot can end, each at once when its reason is there.

use std::sync::Arc;

use tokio::task::JoinHandle;
use vestibule::config::InstanceState;

use crate::forwarding::assert_problem;
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::upstream::{Reply, Signal, Upstream};
use crate::support::vestibule::{Program, Vestibule};
use crate::support::{client, metrics, within};

/// Nobody gets tired of waiting by itself within a test.
const SLOTS: &str = "max_requests = 1\nqueue = { length = 8, timeout = \"10m\" }";
const WAITING: &str = "upstream_queue_length";

/// Answers with its name; `/held` only when the signal comes.
async fn app(name: &'static str, signal: &Signal) -> Upstream {
    let signal = signal.clone();
    Upstream::start(move |request| match request.target.as_str() {
        "/held" => Reply::after_body().wait(&signal).raw("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nheld"),
        _ => Reply::text(200, name),
    })
    .await
}

struct Scene {
    proxy: Arc<Vestibule>,
    apps: [Upstream; 2],
    /// End what is held by one or the other.
    go_on: [Signal; 2],
}

impl Scene {
    async fn new(keys: &str, tables: &str) -> Self {
        let go_on = [Signal::new(), Signal::new()];
        let apps = [app("a", &go_on[0]).await, app("b", &go_on[1]).await];
        let config = Config::to(&apps.each_ref().map(Upstream::address));
        let config = config.upstream(&format!("{SLOTS}\n{keys}")).with(tables);
        Self { proxy: Arc::new(Vestibule::start(config).await), apps, go_on }
    }

    async fn sticky() -> Self {
        Self::new("", "[session]\nmode = \"sticky\"").await
    }

    fn set(&self, place: usize, state: InstanceState) {
        let plan = self.proxy.handle.plan();
        plan.balancers()[0].upstream().instances()[place].set_state(state);
        plan.balancers()[0].refresh();
    }

    /// Takes the only slot of this instance.
    async fn hold(&self, place: usize, cookie: &str) -> Client {
        let before = self.apps[place].requests().len();
        let mut client = self.proxy.connect().await;
        client.send_request("GET", "/held", &[("Cookie", cookie)], b"").await;
        self.apps[place].wait_until("the slot is taken", |seen| seen.requests.len() > before).await;
        client
    }

    /// A request that is on its way while the test goes on, and waits.
    async fn wait(&self, cookie: &str) -> JoinHandle<Response> {
        let (proxy, cookie) = (self.proxy.clone(), cookie.to_owned());
        let waiting = self.waiting().await;
        let answer = tokio::spawn(async move { proxy.get("/", &[("Cookie", &cookie)]).await });
        self.proxy.wait_for_metric(WAITING, "", waiting + 1.0).await;
        answer
    }

    async fn waiting(&self) -> f64 {
        self.proxy.metric(WAITING, "").await
    }

    /// A tie to this instance.
    async fn tie(&self, name: &str) -> String {
        loop {
            let answer = self.proxy.get("/", &[]).await;
            if answer.text() == name {
                return answer.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
            }
        }
    }
}

async fn answer(waiting: JoinHandle<Response>) -> Response {
    within("the wait ends", waiting).await.unwrap()
}

#[tokio::test]
async fn a_tied_client_whose_instance_is_taken_out_goes_to_the_other_at_once() {
    let scene = Scene::sticky().await;
    let tie = scene.tie("a").await;
    let _held = scene.hold(0, &tie).await;
    let waiting = scene.wait(&tie).await;
    scene.set(0, InstanceState::Down);
    let moved = answer(waiting).await;
    assert_eq!((moved.status, moved.text()), (200, "b"));
    assert!(moved.headers.get("set-cookie").is_some());
    assert_eq!(scene.waiting().await, 0.0);
}

#[tokio::test]
async fn a_tied_client_whose_instance_is_taken_out_waits_for_the_other_when_that_is_full() {
    let scene = Scene::sticky().await;
    let (tie, other) = (scene.tie("a").await, scene.tie("b").await);
    let _held = [scene.hold(0, &tie).await, scene.hold(1, &other).await];
    let waiting = scene.wait(&tie).await;
    scene.set(0, InstanceState::Down);
    scene.go_on[1].fire();
    assert_eq!(answer(waiting).await.text(), "b");
}

#[tokio::test]
async fn a_client_that_any_instance_may_serve_is_told_at_once_that_none_is_left() {
    let scene = Scene::new("", "").await;
    let _held = [scene.hold(0, "").await, scene.hold(1, "").await];
    let waiting = scene.wait("").await;
    scene.set(0, InstanceState::Down);
    scene.set(1, InstanceState::Down);
    assert_problem(&answer(waiting).await, 503);
    scene.set(0, InstanceState::Ready);
    scene.go_on[0].fire();
    assert_eq!(scene.proxy.get("/", &[]).await.text(), "a");
}

#[tokio::test]
async fn an_instance_that_comes_back_serves_who_waits() {
    for state in [InstanceState::Down, InstanceState::Drain] {
        let scene = Scene::new("", "").await;
        scene.set(1, state);
        let _held = scene.hold(0, "").await;
        let waiting = scene.wait("").await;
        scene.set(1, InstanceState::Ready);
        assert_eq!(answer(waiting).await.text(), "b");
    }
}

#[tokio::test]
async fn a_drained_instance_serves_those_who_are_tied_to_it_and_nobody_else() {
    let scene = Scene::sticky().await;
    let (tie, other) = (scene.tie("a").await, scene.tie("b").await);
    let _held = [scene.hold(0, &tie).await, scene.hold(1, &other).await];
    let (stranger, tied) = (scene.wait("").await, scene.wait(&tie).await);
    scene.set(0, InstanceState::Drain);
    scene.go_on[0].fire();
    assert_eq!(answer(tied).await.text(), "a");
    scene.go_on[1].fire();
    assert_eq!(answer(stranger).await.text(), "b");
}

#[tokio::test]
async fn who_was_led_by_a_hash_goes_where_the_hash_leads_now() {
    let scene = Scene::new("balance = { hash = \"cookie:k\" }", "").await;
    let first = scene.proxy.get("/", &[("Cookie", "k=1")]).await.text().to_owned();
    let place = usize::from(first == "b");
    let _held = scene.hold(place, "k=1").await;
    let waiting = scene.wait("k=1").await;
    scene.set(place, InstanceState::Drain);
    let other = answer(waiting).await.text().to_owned();
    assert_ne!(other, first);
    let _held_too = scene.hold(1 - place, "k=1").await;
    let waiting = scene.wait("k=1").await;
    scene.go_on[place].fire();
    scene.proxy.wait_for_metric("upstream_requests_in_flight", "", 1.0).await;
    scene.set(place, InstanceState::Ready);
    assert_eq!(answer(waiting).await.text(), first);
}

/// The only request that waits.
async fn one_waits(program: &Program) -> JoinHandle<Response> {
    let address = program.address;
    let waiting = tokio::spawn(async move { client::get(address, "/").await });
    metrics::wait_for(program.admin, WAITING, "", 1.0).await;
    waiting
}

#[tokio::test]
async fn a_reload_gives_room_and_takes_instances_away_while_people_wait() {
    let go_on = [Signal::new(), Signal::new()];
    let apps = [app("a", &go_on[0]).await, app("b", &go_on[1]).await];
    let program = Program::start(Config::to(&[apps[0].address()]).upstream(SLOTS)).await;
    let mut held = Client::connect(program.address).await;
    held.send_request("GET", "/held", &[], b"").await;
    apps[0].wait_until("the slot is taken", |seen| seen.requests.len() == 1).await;
    let waiting = one_waits(&program).await;
    let roomier = SLOTS.replace("max_requests = 1", "max_requests = 2");
    program.configure(&Config::to(&[apps[0].address()]).upstream(&roomier));
    program.reload("the configuration was reloaded").await;
    assert_eq!(answer(waiting).await.text(), "a");

    program.configure(&Config::to(&[apps[0].address()]).upstream(SLOTS));
    program.reload("the configuration was reloaded").await;
    let waiting = one_waits(&program).await;
    program.configure(&Config::to(&[apps[1].address()]).upstream(SLOTS));
    program.reload("the configuration was reloaded").await;
    assert_eq!(answer(waiting).await.text(), "b");
    go_on[0].fire();
    assert_eq!(held.response().await.text(), "held");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_takes_no_slot_with_it() {
    let scene = Scene::new("", "").await;
    scene.set(1, InstanceState::Down);
    let mut held = scene.hold(0, "").await;
    let mut leaving = scene.proxy.connect().await;
    leaving.send_request("GET", "/", &[], b"").await;
    scene.proxy.wait_for_metric(WAITING, "", 1.0).await;
    let staying = scene.wait("").await;
    drop(leaving);
    scene.proxy.wait_for_metric(WAITING, "", 1.0).await;
    scene.go_on[0].fire();
    assert_eq!(held.response().await.text(), "held");
    assert_eq!(answer(staying).await.text(), "a");
    assert_eq!(scene.apps[0].requests().len(), 2);
}

#[tokio::test]
async fn who_waits_too_long_is_told_which_limit_that_was() {
    let held = Signal::new();
    let app = app("a", &held).await;
    let slots = "max_requests = 1\nqueue = { length = 8, timeout = \"50ms\" }";
    let proxy = Vestibule::start(Config::to(&[app.address()]).upstream(slots)).await;
    let mut client = proxy.connect().await;
    client.send_request("GET", "/held", &[], b"").await;
    app.wait_until("the slot is taken", |seen| seen.requests.len() == 1).await;
    let refused = proxy.get("/", &[]).await;
    assert_problem(&refused, 503);
    assert_eq!(refused.json()["limit"], "upstream.queue.timeout");
    held.fire();
    assert_eq!(client.response().await.text(), "held");
    assert_eq!(proxy.get("/", &[]).await.text(), "a");
}
