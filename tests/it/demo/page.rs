//! The demonstration's page steers what it is given, and only for its own origin.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::json;
use vestibule::config::Mode;
use vestibule::lab::demo::{ControlError, Controlled, Controls, InstanceState, Page, State};

use super::{JSON, post};
use crate::support::client::get;

/// Two instances that only exist on paper; the second one cannot be started.
struct Paper(Mutex<State>);

impl Paper {
    fn set_running(&self, instance: usize, running: bool) -> Result<(), ControlError> {
        let mut state = self.0.lock().unwrap();
        let instance = state.instances.get_mut(instance).ok_or(ControlError::NoSuchInstance)?;
        if running && instance.name == "api-2" {
            return Err(ControlError::Failed(io::Error::other("the port is taken by 10.0.0.7")));
        }
        instance.running = running;
        Ok(())
    }
}

impl Controls for Paper {
    fn state(&self) -> Controlled<'_, State> {
        Box::pin(async { self.0.lock().unwrap().clone() })
    }

    fn set_mode(&self, mode: Mode) -> Controlled<'_, Result<(), ControlError>> {
        Box::pin(async move {
            self.0.lock().unwrap().mode = mode;
            Ok(())
        })
    }

    fn stop(&self, instance: usize) -> Controlled<'_, Result<(), ControlError>> {
        Box::pin(async move { self.set_running(instance, false) })
    }

    fn start(&self, instance: usize) -> Controlled<'_, Result<(), ControlError>> {
        Box::pin(async move { self.set_running(instance, true) })
    }
}

async fn start() -> SocketAddr {
    let instance = |name: &str, port| InstanceState {
        name: name.to_owned(),
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        running: true,
        requests: 3,
        active_sessions: 1,
    };
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let instances = vec![instance("api-1", 1), instance("api-2", 2)];
    let controls = Arc::new(Paper(Mutex::new(State { mode: Mode::Local, started, instances })));
    let page = Page::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = page.local_addr();
    tokio::spawn(page.run(controls, std::future::pending()));
    address
}

#[tokio::test]
async fn the_page_is_one_file_that_may_load_nothing() {
    let page = get(start().await, "/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers.get("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.headers.get("cache-control"), Some("no-store"));
    assert!(page.headers.get("content-security-policy").unwrap().starts_with("default-src 'none'; "));
    assert!(page.text().starts_with("<!doctype html>"));
}

#[tokio::test]
async fn the_state_is_shown_instance_by_instance() {
    let state = get(start().await, "/demo/api/state").await;
    assert_eq!(
        state.json(),
        json!({"mode": "local", "started": 1_800_000_000, "instances": [
            {"name": "api-1", "address": "127.0.0.1:1", "running": true, "requests": 3, "active_sessions": 1},
            {"name": "api-2", "address": "127.0.0.1:2", "running": true, "requests": 3, "active_sessions": 1},
        ]})
    );
}

#[tokio::test]
async fn controls_answer_with_the_new_state() {
    let address = start().await;
    for mode in ["sticky", "shared", "local"] {
        let body = json!({"mode": mode}).to_string();
        assert_eq!(post(address, "/demo/api/mode", &[JSON], &body).await.json()["mode"], mode);
    }
    let stopped = post(address, "/demo/api/instances/0/stop", &[JSON], "{}").await.json();
    assert_eq!(
        (&stopped["instances"][0]["running"], &stopped["instances"][1]["running"]),
        (&json!(false), &json!(true))
    );
    let started = post(address, "/demo/api/instances/0/start", &[JSON], "{}").await.json();
    assert_eq!(started["instances"][0]["running"], true);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let address = start().await;
    let evil = ("origin", "http://evil.example");
    let sticky = r#"{"mode":"sticky"}"#;
    let mode = "/demo/api/mode";
    for (path, headers, body, status) in [
        (mode, &[JSON, evil][..], sticky, 403),
        (mode, &[("content-type", "text/plain")], sticky, 415),
        (mode, &[JSON], r#"{"mode":"glued"}"#, 400),
        (mode, &[JSON], r#"{"mode":"sticky","more":1}"#, 400),
        ("/demo/api/instances/2/stop", &[JSON], "{}", 404),
        ("/demo/api/instances/1/start", &[JSON], "{}", 500),
        ("/demo/api/state", &[JSON], "{}", 405),
        ("/demo/api/other", &[JSON], "{}", 404),
    ] {
        let response = post(address, path, headers, body).await;
        assert_eq!(response.status, status, "{path} {body}");
        assert!(!response.text().contains("10.0.0.7"), "{}", response.text());
    }
    assert_eq!(get(address, "/demo/api/mode").await.headers.get("allow"), Some("POST"));
    assert_eq!(get(address, "/demo/api/state").await.json()["mode"], "local");
}
