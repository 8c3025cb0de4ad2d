//! A session that is there and makes no sense is neither a logout nor an outage; what nobody asks for does not matter.

use crate::support::asker::{NOBODY, mirror};
use crate::support::client::{Response, get_with};
use crate::support::config::Config;
use crate::support::metrics;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// With these lines under `[session]` and `[session.store]`.
async fn start(instance: &Service, redis: &Redis, session: &str, store: &str) -> Program {
    let tables = format!("[session]\n{session}\n[session.store]\nurl = \"{}\"\n{store}", redis.url());
    let config = Config::to(&[instance.address()]).with(&tables);
    let program = Program::start(config).await;
    within("the store", async { while ask_once(&program, "none").await.status == 503 {} }).await;
    program
}

async fn ask_once(program: &Program, id: &str) -> Response {
    get_with(program.address, "/", &[("Cookie", &format!("session-id={id}"))]).await
}

async fn who(program: &Program, id: &str) -> String {
    let response = ask_once(program, id).await;
    assert_eq!((response.status, response.headers.all("set-cookie")), (200, vec![]), "{id}: {response:?}");
    response.text().to_owned()
}

const CANNOT_BE_READ: &str = "a session cannot be read";

/// The value is written raw under `session:abc`; what the log says of it.
async fn warning(format: &str, write: &[&[u8]]) -> serde_json::Value {
    let (redis, instance) = (Redis::start().await, mirror());
    let program = start(&instance, &redis, "", &format!("format = \"{format}\"")).await;
    let (name, arguments) = write.split_first().unwrap();
    let () = redis.command(std::str::from_utf8(name).unwrap(), arguments).await;
    for _ in 0..5 {
        assert_eq!(who(&program, "abc").await, NOBODY);
    }
    let mut said = program.said(CANNOT_BE_READ);
    assert_eq!(said.len(), 1, "once a minute: {said:?}");
    let counted = metrics::read(program.admin, "session_resolutions_total", "outcome=\"unreadable\"").await;
    assert_eq!(counted, 5.0);
    let said = said.remove(0);
    assert!(!said.to_string().contains("abc"), "{said}");
    said
}

#[tokio::test]
async fn what_applications_write_is_named_in_the_log_and_costs_nobody_the_session() {
    for (format, write, reason, found) in [
        (
            "json",
            &[&b"SET"[..], b"session:abc", b"\x82\xaa_permanent\xc3\xa7user_id\x2a"][..],
            "no_object",
            "MessagePack",
        ),
        ("json", &[b"SET", b"session:abc", b"\x80\x05\x95\x1a\x00"], "no_object", "a Python pickle"),
        ("json", &[b"SET", b"session:abc", b"b64c5f9e-1d2c-4b52"], "no_object", "plain text"),
        ("json", &[b"SET", b"session:abc", b"user_id|i:42;"], "no_object", "a PHP session"),
        ("json", &[b"SET", b"session:abc", b"{\"user_id\": 42"], "no_object", "broken JSON"),
        ("json", &[b"HSET", b"session:abc", b"user_id", b"42"], "wrong_type", "a hash"),
        (
            "hash",
            &[b"SET", b"session:abc", b"{\"user_id\": 42}"],
            "wrong_type",
            "a string that looks like a JSON object",
        ),
        ("hash", &[b"RPUSH", b"session:abc", b"42"], "wrong_type", "a list"),
        (
            "hash",
            &[b"HSET", b"session:abc", b"user_id", b"42", b"expires", b"2030-01-01T00:00:00Z"],
            "expires",
            "expires",
        ),
        ("hash", &[b"HSET", b"session:abc", b"user_id", b"\xff"], "user", "user"),
    ] {
        let said = warning(format, write).await;
        assert_eq!((&said["reason"], &said["key"]), (&reason.into(), &"session:<id>".into()), "{said}");
        assert!(said["found"].as_str().unwrap().contains(found), "{said}");
        assert!(said["expected"].as_str().unwrap().contains(format), "{said}");
        assert!(!said["remedy"].as_str().unwrap().is_empty(), "{said}");
    }
}

#[tokio::test]
async fn an_unreadable_session_can_be_refused() {
    let (redis, instance) = (Redis::start().await, mirror());
    let () = redis.command("SET", ("session:abc", "a string")).await;
    let program = start(&instance, &redis, "on_unreadable = \"deny\"", "").await;
    let response = ask_once(&program, "abc").await;
    crate::forwarding::assert_problem(&response, 500);
    assert!(response.text().contains("Your session cannot be read by the proxy."), "{response:?}");
    assert_eq!((response.headers.get("retry-after"), response.headers.all("set-cookie")), (None, vec![]));
}

#[tokio::test]
async fn an_unreadable_session_opens_no_route_that_asks_for_one() {
    let (redis, instance) = (Redis::start().await, mirror());
    let () = redis.command("SET", ("session:abc", "a string")).await;
    let program = start(&instance, &redis, "on_absent = \"unauthorized\"", "").await;
    assert_eq!(ask_once(&program, "abc").await.status, 401);
}

#[tokio::test]
async fn a_session_that_is_written_anew_is_read_anew() {
    let (redis, instance) = (Redis::start().await, mirror());
    let () = redis.command("SET", ("session:abc", "a string")).await;
    let program = start(&instance, &redis, "", "").await;
    assert_eq!(who(&program, "abc").await, NOBODY);
    let () = redis.command("DEL", "session:abc").await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    within("the session", async { while who(&program, "abc").await != "42" {} }).await;
}

#[tokio::test]
async fn an_id_of_another_form_is_told_by_its_shape_and_never_shown() {
    let (redis, instance) = (Redis::start().await, mirror());
    let program = start(&instance, &redis, "", "").await;
    let secret = "s%3AkPqz9vTT1dAzmD7HnsmQyAd1.sEcReTsIgNaTuRe";
    for _ in 0..5 {
        assert_eq!(who(&program, secret).await, NOBODY);
    }
    let said = program.said("what a request has as session id");
    assert_eq!(said.len(), 1, "{said:?}");
    let shape = said[0]["id"].as_str().unwrap();
    assert!(shape.starts_with("44 bytes of a-z, A-Z, 0-9, '%', '.'; "), "{shape}");
    assert!(shape.ends_with("looks like a signed cookie of Express"), "{shape}");
    assert!(!program.process.stderr().iter().any(|line| line.contains("kPqz9v")));
}

#[tokio::test]
async fn a_field_that_nobody_asks_for_does_not_matter() {
    let (redis, instance) = (Redis::start().await, mirror());
    let () = redis.command("HSET", ("session:h1", "user_id", "42", "cart", &b"\xff\x00\x80"[..])).await;
    let () = redis.command("HSET", ("session:h2", "user_id", "42", &b"\xff"[..], "x")).await;
    let hashes = start(&instance, &redis, "", "").await;
    assert_eq!((who(&hashes, "h1").await, who(&hashes, "h2").await), ("42".to_owned(), "42".to_owned()));
    let nested =
        [&b"{\"user_id\": \"42\", \"deep\": "[..], &[b'['; 100_000], &[b']'; 100_000], b"}"].concat();
    for (id, json) in [
        ("j1", &b"{\"user_id\": \"42\", \"draft\": \"half \\ud83d\"}"[..]),
        ("j2", b"{\"draft\": \"\xff\", \"\xfe\": 1, \"user_id\": \"42\"}"),
        ("j3", &nested),
    ] {
        let () = redis.command("SET", (format!("session:{id}"), json)).await;
    }
    let jsons = start(&instance, &redis, "", "format = \"json\"").await;
    for id in ["j1", "j2", "j3"] {
        assert_eq!(who(&jsons, id).await, "42", "{id}");
    }
}

#[tokio::test]
async fn numbers_are_told_digit_by_digit() {
    let (redis, instance) = (Redis::start().await, mirror());
    let users = [
        "107691503500061507151",
        "107691503500061507152",
        "9007199254740993",
        "18446744073709551616",
        "0.10",
    ];
    let program = start(&instance, &redis, "", "format = \"json\"").await;
    for (number, user) in users.iter().enumerate() {
        let () =
            redis.command("SET", (format!("session:{number}"), format!("{{\"user_id\": {user}}}"))).await;
        assert_eq!(who(&program, &number.to_string()).await, *user);
    }
}
