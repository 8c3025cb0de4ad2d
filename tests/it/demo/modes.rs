//! The difference between the modes, end to end: page, proxy, and four instances that die and come back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};
use vestibule::lab::demo::{Demo, Options};

use super::{JSON, post};
use crate::support::client::{Response, get, get_with};
use crate::support::{metrics, within};

const ALL: [&str; 4] = ["api-1", "api-2", "api-3", "api-4"];

/// A person at the page: what the browser keeps and what can be pressed.
struct Visitor {
    address: SocketAddr,
    cookies: BTreeMap<String, String>,
}

/// Which instance answered, and whether it knew the visitor.
type Answer = (String, bool);

impl Visitor {
    /// Starts a demonstration of its own.
    async fn of_new_demo() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let demo = Demo::bind(Options { listen: any_port, admin: any_port }).await.unwrap();
        let (address, admin) = (demo.address(), demo.admin_address().unwrap());
        tokio::spawn(demo.run(std::future::pending()));
        metrics::wait_for(admin, "upstream_instance_up", "upstream=\"dify\"", 4.0).await;
        Visitor { address, cookies: BTreeMap::new() }
    }

    async fn press(&self, path: &str, body: Value) -> Value {
        let answer = post(self.address, path, &[JSON], &body.to_string()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    async fn choose_mode(&self, mode: &str) {
        assert_eq!(self.press("/demo/api/mode", json!({"mode": mode})).await["mode"], mode);
    }

    async fn stop(&self, instance: &str) {
        self.press(&format!("/demo/api/instances/{}/stop", index(instance)), json!({})).await;
    }

    /// Starts a stopped instance and waits until it is asked again.
    async fn start(&mut self, instance: &str) {
        self.press(&format!("/demo/api/instances/{}/start", index(instance)), json!({})).await;
        within(instance, async { while self.ask().await.0 != instance {} }).await;
    }

    /// The state of an instance as the page shows it.
    async fn state(&self, instance: &str) -> Value {
        get(self.address, "/demo/api/state").await.json()["instances"][index(instance)].clone()
    }

    /// Logs in; returns the instance that took the password.
    async fn log_in(&mut self) -> String {
        let password = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "Passw0rd1");
        let body = json!({"email": "u1@example.com", "password": password});
        let headers = [JSON, ("cookie", &self.cookie_line())];
        let answer = post(self.address, "/console/api/login", &headers, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.keep_cookies(&answer);
        name(&answer)
    }

    async fn ask(&mut self) -> Answer {
        let csrf = self.cookies.get("csrf_token").cloned().unwrap_or_default();
        let headers = [("cookie", self.cookie_line()), ("x-csrf-token", csrf)];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let answer = get_with(self.address, "/console/api/account/profile", &headers).await;
        self.keep_cookies(&answer);
        match answer.status {
            200 => assert_eq!(answer.json()["name"], "User 1"),
            status => assert_eq!(status, 401, "{}", answer.text()),
        }
        (name(&answer), answer.status == 200)
    }

    async fn ask_times(&mut self, times: usize) -> Vec<Answer> {
        let mut answers = Vec::new();
        for _ in 0..times {
            answers.push(self.ask().await);
        }
        answers
    }

    fn cookie_line(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&mut self, answer: &Response) {
        for line in answer.headers.all("set-cookie") {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

fn index(instance: &str) -> usize {
    ALL.iter().position(|name| *name == instance).unwrap()
}

fn name(answer: &Response) -> String {
    answer.headers.get("x-stub-instance").unwrap().to_owned()
}

#[tokio::test]
async fn in_local_mode_a_login_counts_only_where_it_was_made() {
    let mut visitor = Visitor::of_new_demo().await;
    let home = visitor.log_in().await;
    let answers: BTreeSet<Answer> = visitor.ask_times(4).await.into_iter().collect();
    assert_eq!(answers, ALL.map(|name| (name.to_owned(), name == home)).into());
    assert_eq!(visitor.state(&home).await["active_sessions"], 1);
}

#[tokio::test]
async fn in_sticky_mode_a_login_lasts_until_its_instance_is_stopped() {
    let mut visitor = Visitor::of_new_demo().await;
    visitor.choose_mode("sticky").await;
    let home = visitor.log_in().await;
    assert_eq!(visitor.ask_times(8).await, vec![(home.clone(), true); 8]);
    visitor.stop(&home).await;
    let (next, known) = visitor.ask().await;
    assert!(next != home && !known, "{next} {known}");
    assert_eq!(visitor.log_in().await, next);
    assert_eq!(visitor.ask_times(8).await, vec![(next, true); 8]);
}

#[tokio::test]
async fn in_shared_mode_a_login_survives_the_stop_of_every_instance_in_turn() {
    let mut visitor = Visitor::of_new_demo().await;
    visitor.choose_mode("shared").await;
    visitor.log_in().await;
    let everywhere: BTreeSet<Answer> = ALL.map(|name| (name.to_owned(), true)).into();
    assert_eq!(BTreeSet::from_iter(visitor.ask_times(4).await), everywhere);
    for stopped in ALL {
        visitor.stop(stopped).await;
        let elsewhere = everywhere.iter().filter(|(name, _)| name != stopped).cloned().collect();
        assert_eq!(BTreeSet::from_iter(visitor.ask_times(6).await), elsewhere);
        visitor.start(stopped).await;
    }
    assert_eq!(BTreeSet::from_iter(visitor.ask_times(4).await), everywhere);
}

#[tokio::test]
async fn a_stopped_instance_comes_back_where_it_was_and_remembers_nobody() {
    let mut visitor = Visitor::of_new_demo().await;
    let home = visitor.log_in().await;
    let before = visitor.state(&home).await;
    visitor.stop(&home).await;
    let stopped = visitor.state(&home).await;
    assert_eq!((&stopped["running"], &stopped["active_sessions"]), (&json!(false), &json!(0)));
    visitor.start(&home).await;
    let after = visitor.state(&home).await;
    assert_eq!(
        after,
        json!({"name": home, "address": before["address"], "running": true, "requests": 1, "active_sessions": 0})
    );
    assert_eq!(visitor.ask_times(4).await.iter().filter(|(_, known)| *known).count(), 0);
}
