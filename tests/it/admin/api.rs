//! `/api/v1`, called as any program would call it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{TOKEN, application, config, login, who};
use crate::forwarding::assert_problem;
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::vestibule::{Program, Vestibule};

const REVOKE: &str = "/api/v1/sessions/revoke";
const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn post(admin: SocketAddr, headers: &[(&str, &str)], body: &str) -> Response {
    Client::connect(admin).await.request("POST", REVOKE, headers, body.as_bytes()).await
}

/// A call of one who knows the token.
async fn revoke(admin: SocketAddr, document: Value) -> Response {
    let token = format!("Bearer {TOKEN}");
    post(admin, &[("Authorization", &token), JSON], &document.to_string()).await
}

fn assert_revoked(response: &Response, sessions: u64) {
    let expected = format!("{{\"status\":\"revoked\",\"sessions\":{sessions}}}");
    assert_eq!((response.status, response.text()), (200, expected.as_str()));
    assert_eq!(response.headers.get("content-type"), Some("application/json"));
    assert_eq!(response.headers.get("cache-control"), Some("no-store"));
}

async fn started() -> (Upstream, Vestibule) {
    let application = application().await;
    let proxy = Vestibule::start(config(&application)).await;
    (application, proxy)
}

#[tokio::test]
async fn a_revoked_session_is_over_and_every_other_goes_on() {
    let (_application, proxy) = started().await;
    let address = proxy.address();
    let [one, same_user, other] =
        [login(address, "ada").await, login(address, "ada").await, login(address, "bob").await];
    assert_revoked(&revoke(proxy.admin_address(), json!({ "id": one })).await, 1);
    let response = proxy.get("/", &[("Cookie", &format!("session-id={one}"))]).await;
    assert_eq!(response.text(), "nobody");
    assert!(response.headers.get("set-cookie").unwrap().contains("Max-Age=0"), "{response:?}");
    assert_eq!((who(address, &same_user).await, who(address, &other).await), ("ada".into(), "bob".into()));
    for gone in [one.as_str(), "never-was"] {
        assert_revoked(&revoke(proxy.admin_address(), json!({ "id": gone })).await, 0);
    }
}

#[tokio::test]
async fn a_revoked_user_loses_every_session_and_nobody_else_any() {
    let (_application, proxy) = started().await;
    let address = proxy.address();
    let [one, two, other, namesake] = [
        login(address, "ada").await,
        login(address, "ada").await,
        login(address, "bob").await,
        login(address, "adam").await,
    ];
    assert_revoked(&revoke(proxy.admin_address(), json!({ "user": "ada" })).await, 2);
    for id in [&one, &two] {
        assert_eq!(who(address, id).await, "nobody");
    }
    assert_eq!((who(address, &other).await, who(address, &namesake).await), ("bob".into(), "adam".into()));
    assert_revoked(&revoke(proxy.admin_address(), json!({ "user": "ada" })).await, 0);
}

#[tokio::test]
async fn the_user_is_who_the_configured_pointer_says() {
    let application = application().await;
    let proxy = Vestibule::start(config(&application).with("[session]\nuser = \"/name\"")).await;
    let id = login(proxy.address(), "ada").await;
    assert_revoked(&revoke(proxy.admin_address(), json!({ "user": "ada" })).await, 0);
    assert_revoked(&revoke(proxy.admin_address(), json!({ "user": "name-of-ada" })).await, 1);
    assert_eq!(who(proxy.address(), &id).await, "nobody");
}

#[tokio::test]
async fn without_a_configured_token_nobody_may_and_all_are_told_how_to_change_that() {
    let application = application().await;
    let proxy = Vestibule::start(Config::to(&[application.address()])).await;
    let refused = revoke(proxy.admin_address(), json!({ "id": "abc" })).await;
    assert_problem(&refused, 403);
    assert!(refused.json()["detail"].as_str().unwrap().contains("set `token` in [admin]"), "{refused:?}");
}

#[tokio::test]
async fn only_the_token_opens() {
    let (_application, proxy) = started().await;
    let id = login(proxy.address(), "ada").await;
    let body = json!({ "id": id }).to_string();
    let (right, longer) = (format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}0"));
    let basic = format!("Basic {TOKEN}");
    for tokens in [&[][..], &["Bearer wrong"], &[&longer], &[&basic], &[&right, &right]] {
        let lines: Vec<_> = tokens.iter().map(|token| ("Authorization", *token)).chain([JSON]).collect();
        let refused = post(proxy.admin_address(), &lines, &body).await;
        assert_problem(&refused, 401);
        assert_eq!(refused.headers.get("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(who(proxy.address(), &id).await, "ada");
}

#[tokio::test]
async fn a_call_that_cannot_be_meant_is_refused_and_quoted_nowhere() {
    let (_application, proxy) = started().await;
    let token = format!("Bearer {TOKEN}");
    let (in_json, in_text) = ([("Authorization", &*token), JSON], [("Authorization", &*token)]);
    let too_large = json!({ "user": "hunter2".repeat(3000) }).to_string();
    let cases = [
        (415, &in_text[..], r#"{"id": "hunter2"}"#),
        (413, &in_json, too_large.as_str()),
        (400, &in_json, ""),
        (400, &in_json, r#"{"id": "hunter2""#),
        (400, &in_json, r#"{"id": "hunter2", "user": "hunter2"}"#),
        (400, &in_json, r#"{"hunter2": "hunter2"}"#),
        (422, &in_json, r#"{"id": "hunter2*"}"#),
        (422, &in_json, r#"{"user": ""}"#),
    ];
    for (status, headers, body) in cases {
        let refused = post(proxy.admin_address(), headers, body).await;
        assert_problem(&refused, status);
        assert!(!refused.text().contains("hunter2"), "{refused:?}");
        assert!(!refused.json()["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn other_methods_and_addresses_are_refused() {
    let (_application, proxy) = started().await;
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let refused = Client::connect(proxy.admin_address()).await.request(method, REVOKE, &[], b"").await;
        assert_eq!((refused.status, refused.headers.get("allow")), (405, Some("POST")), "{method}");
    }
    assert_problem(&proxy.admin(REVOKE).await, 405);
    assert_problem(&proxy.admin("/api/v1/nothing").await, 404);
    let refused = Client::connect(proxy.admin_address()).await.request("POST", "/livez", &[], b"").await;
    assert_eq!((refused.status, refused.headers.get("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn a_session_in_redis_is_ended_and_a_store_that_is_out_is_said() {
    let (application, mut redis) = (application().await, Redis::start().await);
    redis.put_session("abc", &[("user_id", "42")]).await;
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let proxy = Vestibule::start(config(&application).with(&store)).await;
    let revoked = revoke(proxy.admin_address(), json!({ "id": "abc" })).await;
    assert_eq!(revoked.json()["sessions"], 1, "{revoked:?}");
    assert!(!redis.command::<bool>("EXISTS", "session:abc").await);
    redis.stop();
    let failed = revoke(proxy.admin_address(), json!({ "id": "abc" })).await;
    assert_problem(&failed, 503);
    assert_eq!(failed.headers.get("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_caller_who_leaves_neither_stops_a_call_nor_keeps_it_out_of_the_log() {
    let (application, redis) = (application().await, Redis::start().await);
    let store = format!("[session.store]\nurl = \"{}\"", redis.url());
    let program = Program::start(config(&application).with(&store)).await;
    assert_eq!(revoke(program.admin, json!({ "id": "connects" })).await.json()["sessions"], 0);
    redis.freeze();
    let (token, body) = (format!("Bearer {TOKEN}"), json!({ "id": "abc" }).to_string());
    let mut caller = Client::connect(program.admin).await;
    caller.send_request("POST", REVOKE, &[("Authorization", &token), JSON], body.as_bytes()).await;
    drop(caller);
    let timed_out = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"] == "sessions revoke" && line["outcome"] == "timeout").then_some(())
    };
    program.process.wait_for_line("the call's line", timed_out).await;
    redis.thaw();
}

#[tokio::test]
async fn every_call_is_one_line_without_a_secret() {
    let application = application().await;
    let mut program = Program::start_with(config(&application), &["--log-level", "trace"]).await;
    let id = login(program.address, "ada").await;
    let secret_user = json!({ "user": "secret-user" });
    assert_revoked(&revoke(program.admin, json!({ "id": id })).await, 1);
    assert_revoked(&revoke(program.admin, secret_user.clone()).await, 0);
    assert_eq!(revoke(program.admin, json!({ "id": "secret-id*" })).await.status, 422);
    assert_eq!(revoke(program.admin, json!({ "secret-key": "secret-value" })).await.status, 400);
    let wrong = [("Authorization", "Bearer secret-token"), JSON];
    assert_eq!(post(program.admin, &wrong, &secret_user.to_string()).await.status, 401);
    program.process.signal("TERM");
    program.process.exit().await;
    let (stdout, stderr) = (program.process.stdout(), program.process.stderr());
    let lines = stderr.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let calls: Vec<Value> = lines.filter(|line| line["message"] == "sessions revoke").collect();
    let told: Vec<_> =
        calls.iter().map(|line| (line["outcome"].as_str().unwrap(), line["by"].as_str())).collect();
    let expected = [
        ("revoked", Some("session")),
        ("revoked", Some("user")),
        ("invalid", None),
        ("malformed", None),
        ("unauthorized", None),
    ];
    assert_eq!(told, expected);
    assert!(calls.iter().all(|line| line["level"] == "INFO"), "{calls:?}");
    assert_eq!((&calls[0]["sessions"], &calls[1]["sessions"]), (&json!(1), &json!(0)));
    let used = stdout.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let marks: Vec<Value> = used.map(|line| line["session_mark"].clone()).filter(Value::is_string).collect();
    assert!(marks.contains(&calls[0]["mark"]), "the access log calls the session otherwise: {marks:?}");
    let output = [stdout, stderr].concat().join("\n");
    for secret in [id.as_str(), "secret-", TOKEN] {
        assert!(!output.contains(secret), "{secret} in {output}");
    }
}
