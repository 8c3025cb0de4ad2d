//! A session that the store does not know is not one that has ended: the application's cookie stays.

use crate::support::asker::{NOBODY, mirror};
use crate::support::client::{Response, get_with};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::service::Service;
use crate::support::vestibule::Program;
use crate::support::within;

/// A vestibule whose sessions are in `store`, with these lines under `[session]`.
async fn start(instance: &Service, url: &str, session: &str) -> Program {
    let tables = format!("[session]\n{session}\n[session.store]\nurl = \"{url}\"");
    Program::start(Config::to(&[instance.address()]).with(&tables)).await
}

async fn ask(program: &Program, cookie: &str) -> Response {
    within("an answer", async {
        loop {
            let response = get_with(program.address, "/", &[("Cookie", cookie)]).await;
            if response.status != 503 {
                return response;
            }
        }
    })
    .await
}

fn cookies(response: &Response) -> Vec<&str> {
    response.headers.all("set-cookie")
}

const NONE_FOUND: &str = "none of the first 10 sessions";

#[tokio::test]
async fn sessions_in_another_database_cost_nobody_a_cookie_and_the_operator_is_told_once() {
    let (redis, instance) = (Redis::start().await, mirror());
    let mut connection = redis.connect().await;
    let () = ::redis::pipe()
        .cmd("SELECT")
        .arg(2)
        .cmd("HSET")
        .arg("session:abc")
        .arg("user_id")
        .arg("42")
        .query_async(&mut connection)
        .await
        .unwrap();
    let wrong = start(&instance, &redis.url(), "cache = { enabled = false }").await;
    for number in 0..20 {
        let response = ask(&wrong, "session-id=abc; other=1").await;
        assert_eq!((response.text(), cookies(&response)), (NOBODY, vec![]), "{number}");
    }
    let said = wrong.said(NONE_FOUND);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((said[0]["key"].as_str(), said[0]["database"].as_u64()), (Some("session:<id>"), Some(0)));
    let right = start(&instance, &redis.url().replace("/0", "/2"), "").await;
    assert_eq!(ask(&right, "session-id=abc").await.text(), "42");
}

#[tokio::test]
async fn nobody_is_warned_once_a_session_was_found() {
    let (redis, instance) = (Redis::start().await, mirror());
    redis.put_session("abc", &[("user_id", "42")]).await;
    let program = start(&instance, &redis.url(), "cache = { enabled = false }").await;
    assert_eq!(ask(&program, "session-id=abc").await.text(), "42");
    for number in 0..20 {
        assert_eq!(ask(&program, &format!("session-id=old-{number}")).await.text(), NOBODY);
    }
    assert_eq!(program.said(NONE_FOUND).len(), 0);
}

#[tokio::test]
async fn the_operator_says_which_cookies_are_cleared() {
    let (redis, instance) = (Redis::start().await, mirror());
    for (clear, ended, unknown) in [("ended", 1, 0), ("all", 1, 1), ("never", 0, 0)] {
        redis.put_session("abc", &[("user_id", "42")]).await;
        let session = format!("cache = {{ enabled = false }}\ncookie = {{ clear = \"{clear}\" }}");
        let program = start(&instance, &redis.url(), &session).await;
        assert_eq!(ask(&program, "session-id=abc").await.text(), "42");
        let () = redis.command("DEL", "session:abc").await;
        assert_eq!(cookies(&ask(&program, "session-id=abc").await).len(), ended, "{clear}");
        assert_eq!(cookies(&ask(&program, "session-id=never").await).len(), unknown, "{clear}");
    }
}

/// What was revoked is known to have ended, also by a vestibule that never saw it.
#[tokio::test]
async fn a_tombstone_tells_that_a_session_has_ended() {
    let (redis, instance) = (Redis::start().await, mirror());
    let () = redis.command("SET", ("vestibule:dead:{session:abc}", "revoked")).await;
    let program = start(&instance, &redis.url(), "").await;
    let response = ask(&program, "session-id=abc").await;
    assert_eq!((response.text(), cookies(&response).len()), (NOBODY, 1));
}

#[tokio::test]
async fn an_unknown_session_is_counted_as_such_and_the_route_decides() {
    let (redis, instance) = (Redis::start().await, mirror());
    let program = start(&instance, &redis.url(), "on_absent = \"unauthorized\"").await;
    let response = ask(&program, "session-id=abc").await;
    assert_eq!((response.status, cookies(&response)), (401, vec![]));
    let counted =
        crate::support::metrics::read(program.admin, "session_resolutions_total", "outcome=\"unknown\"")
            .await;
    assert_eq!(counted, 1.0);
}

#[tokio::test]
async fn of_several_cookies_the_first_that_is_alive_counts() {
    let (redis, instance) = (Redis::start().await, mirror());
    redis.put_session("ada", &[("user_id", "ada")]).await;
    redis.put_session("ada-too", &[("user_id", "ada")]).await;
    redis.put_session("bob", &[("user_id", "bob")]).await;
    let program = start(&instance, &redis.url(), "").await;
    for (ids, expected) in [
        (&["old", "ada"][..], "ada"),
        (&["ada", "old"], "ada"),
        (&["o1", "o2", "o3", "ada"], "ada"),
        (&["ada", "ada-too"], "ada"),
        (&["not!an!id", "ada"], "ada"),
        (&["ada", "ada"], "ada"),
        (&["ada", "bob"], NOBODY),
        (&["old", "bob", "ada"], NOBODY),
        (&["o1", "o2", "o3", "o4", "ada"], NOBODY),
        (&["old", "older"], NOBODY),
    ] {
        let cookie = ids.iter().map(|id| format!("session-id={id}")).collect::<Vec<_>>().join("; ");
        let response = ask(&program, &cookie).await;
        assert_eq!((response.text(), cookies(&response)), (expected, vec![]), "{ids:?}");
    }
    let () = redis.command("DEL", "session:bob").await;
    within("the end", async {
        while ask(&program, "session-id=bob; session-id=ada").await.text() != "ada" {}
    })
    .await;
    assert_eq!(cookies(&ask(&program, "session-id=bob; session-id=old").await), [""; 0], "one is unknown");
}
