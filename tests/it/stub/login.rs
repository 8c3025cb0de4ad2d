//! Who is logged in, and where.

use std::collections::BTreeMap;

use super::*;
use crate::support::redis::Redis;

/// What a browser keeps after a login.
#[derive(Debug, Clone)]
struct Browser {
    cookies: String,
    csrf: String,
}

impl Browser {
    fn new(response: &Response) -> Self {
        let lines = response.headers.all("set-cookie");
        let pairs: Vec<_> = lines.iter().map(|line| line.split(';').next().unwrap()).collect();
        let csrf = pairs.iter().find_map(|pair| pair.strip_prefix("csrf_token=")).unwrap().to_owned();
        Browser { cookies: pairs.join("; "), csrf }
    }

    async fn profile(&self, address: SocketAddr) -> Response {
        let headers = [("cookie", self.cookies.as_str()), ("x-csrf-token", self.csrf.as_str())];
        get(address, "/console/api/account/profile", &headers).await
    }

    async fn post(&self, address: SocketAddr, path: &str) -> Response {
        post(address, path, &[("cookie", self.cookies.as_str())], &json!({})).await
    }
}

fn credentials(number: u32) -> Value {
    use base64::prelude::*;
    let password = BASE64_STANDARD.encode(format!("Passw0rd{number}"));
    json!({"email": format!("u{number}@example.com"), "password": password, "remember_me": true})
}

async fn login(address: SocketAddr, number: u32) -> Browser {
    let response = post(address, "/console/api/login", &[], &credentials(number)).await;
    assert_eq!(response.status, 200);
    Browser::new(&response)
}

#[tokio::test]
async fn a_login_sets_three_cookies_and_opens_the_profile() {
    let stub = start_default().await;
    let response = post(stub.address, "/console/api/login", &[], &credentials(7)).await;
    let shapes: Vec<_> = response
        .headers
        .all("set-cookie")
        .iter()
        .map(|line| {
            let (pair, attributes) = line.split_once("; ").unwrap();
            format!("{} | {attributes}", pair.split('=').next().unwrap())
        })
        .collect();
    assert_eq!(
        shapes,
        [
            "access_token | Max-Age=3600; HttpOnly; Path=/; SameSite=Lax",
            "refresh_token | Max-Age=2592000; HttpOnly; Path=/; SameSite=Lax",
            "csrf_token | Max-Age=3600; Path=/; SameSite=Lax",
        ]
    );
    let browser = Browser::new(&response);
    assert_eq!(response.text(), r#"{"result":"success"}"#);

    let profile = browser.profile(stub.address).await.json();
    assert_eq!((&profile["name"], &profile["email"]), (&json!("User 7"), &json!("u7@example.com")));
    let snapshot = stub.handle.snapshot();
    assert_eq!((snapshot.logins, snapshot.sessions_active, snapshot.sessions_unknown), (1, 1, 0));
}

#[tokio::test]
async fn bad_credentials_are_refused_in_difys_words() {
    let stub = start_default().await;
    let failed = |message: &str| json!({"code": "authentication_failed", "message": message, "status": 401});
    let cases = [
        (
            json!({"email": "u1@example.com", "password": "UGFzc3cwcmQy"}),
            401,
            failed("Invalid email or password."),
        ),
        (json!({"email": "u1@example.com", "password": "Passw0rd!"}), 401, failed("Invalid encrypted data")),
        (
            json!({"email": "u1@example.com"}),
            400,
            json!({"code": "invalid_param", "message": "missing field `password`", "status": 400}),
        ),
    ];
    for (body, status, expected) in cases {
        let response = post(stub.address, "/console/api/login", &[], &body).await;
        assert_eq!(response.status, status, "{body}");
        assert_eq!(response.headers.get("set-cookie"), None);
        assert_eq!(response.json(), expected);
    }
}

#[tokio::test]
async fn the_csrf_token_must_be_sent_twice_and_be_of_the_same_user() {
    let stub = start_default().await;
    let (one, other) = (login(stub.address, 1).await, login(stub.address, 2).await);
    let missing = Browser { csrf: String::new(), ..one.clone() };
    let different = Browser { csrf: other.csrf.clone(), ..one.clone() };
    let of_another = Browser {
        cookies: one
            .cookies
            .replace(&format!("csrf_token={}", one.csrf), &format!("csrf_token={}", other.csrf)),
        csrf: other.csrf,
    };
    for browser in [missing, different, of_another] {
        let response = browser.profile(stub.address).await;
        assert_eq!(response.status, 401);
        assert_eq!(response.headers.get("www-authenticate").unwrap(), "Bearer realm=\"api\"");
        assert_eq!(response.json(), unauthorized("CSRF token is missing or invalid."));
    }
    assert_eq!(one.profile(stub.address).await.status, 200);
}

#[tokio::test]
async fn another_instance_does_not_know_the_login_and_counts_it_as_lost() {
    let (here, there) = (start_default().await, start_default().await);
    let browser = login(here.address, 1).await;
    let response = browser.profile(there.address).await;
    assert_eq!(response.status, 401);
    assert_eq!(response.json(), json!({"code": "unauthorized", "message": "Unauthorized."}));
    assert_eq!(there.handle.snapshot().sessions_unknown, 1);
    assert_eq!(here.handle.snapshot().sessions_unknown, 0);
}

#[tokio::test]
async fn another_key_does_not_believe_the_token() {
    let here = start_default().await;
    let there = start(Options { secret_key: Secret::new("another".to_owned()), ..Options::default() }).await;
    let response = login(here.address, 1).await.profile(there.address).await;
    assert_eq!(response.json(), unauthorized("Invalid token signature."));
    assert_eq!(there.handle.snapshot().sessions_unknown, 1);
}

#[tokio::test]
async fn a_caller_without_a_token_is_not_a_lost_login() {
    let stub = start_default().await;
    let response = get(stub.address, "/console/api/account/profile", &[]).await;
    assert_eq!(response.json(), unauthorized("Invalid Authorization token."));
    assert_eq!(stub.handle.snapshot().sessions_unknown, 0);
}

#[tokio::test]
async fn a_logout_ends_the_session_and_the_refresh_token() {
    let stub = start_default().await;
    let browser = login(stub.address, 1).await;
    let response = browser.post(stub.address, "/console/api/logout").await;
    assert_eq!(response.headers.all("set-cookie").len(), 3);
    assert_eq!(browser.profile(stub.address).await.status, 401);
    let refresh = browser.post(stub.address, "/console/api/refresh-token").await;
    assert_eq!(refresh.status, 401);
    assert_eq!(stub.handle.snapshot().sessions_active, 0);
}

#[tokio::test]
async fn a_refresh_token_works_once() {
    let stub = start_default().await;
    let browser = login(stub.address, 1).await;
    let first = browser.post(stub.address, "/console/api/refresh-token").await;
    assert_eq!(first.status, 200);
    let refreshed = Browser::new(&first);
    assert_eq!(refreshed.profile(stub.address).await.status, 200);
    let second = browser.post(stub.address, "/console/api/refresh-token").await;
    assert_eq!(second.status, 401);
    assert_eq!(second.json(), json!({"result": "fail", "message": "Invalid refresh token"}));
    let none = post(stub.address, "/console/api/refresh-token", &[], &json!({})).await;
    assert_eq!(none.json(), json!({"result": "fail", "message": "No refresh token provided"}));
}

#[tokio::test]
async fn with_sessions_at_the_proxy_it_asks_for_one_and_believes_the_headers() {
    let stub = start(Options { sessions: Sessions::Header, ..Options::default() }).await;
    let response = post(stub.address, "/console/api/login", &[], &credentials(7)).await;
    assert_eq!(
        response.headers.get("vestibule-session").unwrap(),
        "set; user_id=\"5d1fba5e-0000-4000-8000-000000000007\"; name=\"User 7\"; email=\"u7@example.com\""
    );
    let browser = Browser::new(&response);
    assert_eq!(browser.cookies, format!("csrf_token={}", browser.csrf));
    assert_eq!(response.text(), r#"{"result":"success"}"#);

    let known = [("x-user-id", "42"), ("x-user-name", "Ann"), ("cookie", browser.cookies.as_str())];
    let with_csrf = [&known[..], &[("x-csrf-token", browser.csrf.as_str())]].concat();
    let profile = get(stub.address, "/console/api/account/profile", &with_csrf).await.json();
    assert_eq!((&profile["id"], &profile["name"]), (&json!("42"), &json!("Ann")));
    let without = get(stub.address, "/console/api/account/profile", &known).await;
    assert_eq!(without.json(), unauthorized("CSRF token is missing or invalid."));

    assert_eq!(stub.handle.snapshot().sessions_unknown, 0);
    let lost = browser.profile(stub.address).await;
    assert_eq!(lost.json(), unauthorized("Invalid Authorization token."));
    assert_eq!(stub.handle.snapshot().sessions_unknown, 1);

    let logout = browser.post(stub.address, "/console/api/logout").await;
    assert_eq!(logout.headers.get("vestibule-session").unwrap(), "end");
}

#[tokio::test]
async fn sessions_move_while_it_runs() {
    let stub = start_default().await;
    let browser = login(stub.address, 1).await;
    stub.handle.set_sessions(&Sessions::Header).await.unwrap();
    assert_eq!(browser.profile(stub.address).await.status, 401);
    let response = post(stub.address, "/console/api/login", &[], &credentials(1)).await;
    assert!(response.headers.get("vestibule-session").is_some());
}

#[tokio::test]
async fn instances_that_share_a_redis_share_their_logins() {
    let redis = Redis::start().await;
    let shared =
        || Options { sessions: Sessions::Redis { url: Secret::new(redis.url()) }, ..Options::default() };
    let (here, there) = (start(shared()).await, start(shared()).await);
    let browser = login(here.address, 7).await;
    let profile = browser.profile(there.address).await.json();
    assert_eq!(profile["email"], "u7@example.com");

    let keys: Vec<String> = redis.command("KEYS", "session:*").await;
    let fields: BTreeMap<String, String> = redis.command("HGETALL", &keys[0]).await;
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["email", "expires", "name", "user_id"]);
    let ttl: u64 = redis.command("TTL", &keys[0]).await;
    assert!((3590..=3600).contains(&ttl), "{ttl}");

    browser.post(there.address, "/console/api/logout").await;
    assert_eq!(browser.profile(here.address).await.status, 401);
    assert_eq!(redis.command::<Vec<String>>("KEYS", "*").await, [""; 0]);
}

#[tokio::test]
async fn a_store_that_is_down_is_no_logout() {
    let mut redis = Redis::start().await;
    let sessions = Sessions::Redis { url: Secret::new(redis.url()) };
    let stub = start(Options { sessions, ..Options::default() }).await;
    let browser = login(stub.address, 1).await;
    redis.stop();
    let response = browser.profile(stub.address).await;
    assert_eq!(response.status, 500);
    assert_eq!(stub.handle.snapshot().sessions_unknown, 0);
}
