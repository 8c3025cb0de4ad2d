//! A store that cannot answer is neither a login nor a logout.

use std::time::Duration;

use crate::support::client::{self, Response};
use crate::support::config::Config;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Program, Vestibule};
use crate::support::{NEVER, within};

const SESSION: (&str, &str) = ("Cookie", "session-id=abc");
/// Without it a session that was served just now is served until its lease is over.
const NO_CACHE: &str = "[session.cache]\nenabled = false";

async fn start(redis: &Redis, store: &str) -> (Upstream, Vestibule) {
    let upstream =
        Upstream::start(|request| Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")))
            .await;
    let patient = match store.contains("response_timeout") {
        true => "",
        false => "response_timeout = \"20s\"\nwait_timeout = \"20s\"\n",
    };
    let store = format!("[session.store]\nurl = \"{}\"\n{patient}{store}", redis.url());
    let public = "[[route]]\npath = \"/public\"\nupstream = \"app\"\nsession = false";
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(&store).with(public)).await;
    (upstream, proxy)
}

#[track_caller]
fn assert_unavailable(response: &Response) {
    crate::forwarding::assert_problem(response, 503);
    assert!(response.headers.get("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
    assert_eq!(response.headers.all("set-cookie"), [""; 0], "an outage clears no cookie");
}

/// Asks until a session is served again.
async fn until_served(proxy: &Vestibule, user: &str) {
    within("recovery", async {
        loop {
            let response = proxy.get("/", &[SESSION]).await;
            if response.status == 200 {
                assert_eq!(response.text(), user);
                return;
            }
            assert_unavailable(&response);
            tokio::time::sleep(Duration::from_millis(20)).await; // it is for asking, not for waiting
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_store_is_503_and_comes_back_by_itself() {
    let mut redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    let (upstream, proxy) = start(&redis, NO_CACHE).await;
    assert_eq!(proxy.get("/", &[SESSION]).await.text(), "42");
    redis.stop();
    for _ in 0..5 {
        assert_unavailable(&proxy.get("/", &[SESSION]).await);
    }
    assert_eq!(upstream.requests().len(), 1, "nobody got through without a known session");
    redis.restart().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    until_served(&proxy, "42").await;
}

#[tokio::test]
async fn a_frozen_store_is_503_within_its_deadline() {
    let redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    let (_upstream, proxy) = start(&redis, &format!("response_timeout = \"200ms\"\n{NO_CACHE}")).await;
    until_served(&proxy, "42").await;
    redis.freeze();
    // A frozen server sends no reply.
    assert_unavailable(&proxy.get("/", &[SESSION]).await);
    redis.thaw();
    until_served(&proxy, "42").await;
}

#[tokio::test]
async fn requests_that_need_no_store_go_on_without_it() {
    let mut redis = Redis::start().await;
    // A request that reached the store would outlast this test.
    let patient =
        format!("connect_timeout = \"{NEVER}\"\nresponse_timeout = \"{NEVER}\"\nwait_timeout = \"{NEVER}\"");
    let (_upstream, proxy) = start(&redis, &patient).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    redis.freeze();
    for (target, headers) in [("/", &[][..]), ("/", &[("Cookie", "other=1")]), ("/public", &[SESSION])] {
        let response = proxy.get(target, headers).await;
        assert_eq!((response.status, response.text()), (200, "nobody"), "{target}");
    }
    redis.stop();
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn it_starts_while_the_store_is_down_and_finds_it_later() {
    let mut redis = Redis::start().await;
    redis.stop();
    let (_upstream, proxy) = start(&redis, "").await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_unavailable(&proxy.get("/", &[SESSION]).await);
    redis.restart().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    until_served(&proxy, "42").await;
}

#[tokio::test]
async fn a_store_that_refuses_to_answer_is_no_logout() {
    let redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    let (_upstream, proxy) = start(&redis, NO_CACHE).await;
    assert_eq!(proxy.get("/", &[SESSION]).await.text(), "42");
    let () = redis.command("ACL", ("SETUSER", "default", "-hgetall", "-@read")).await;
    assert_unavailable(&proxy.get("/", &[SESSION]).await);
    let () = redis.command("ACL", ("SETUSER", "default", "+@all")).await;
    until_served(&proxy, "42").await;
}

#[tokio::test]
async fn a_store_that_swaps_its_contents_is_believed_only_when_it_answers() {
    let mut redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    let (_upstream, proxy) = start(&redis, "").await;
    assert_eq!(proxy.get("/", &[SESSION]).await.text(), "42");
    redis.restart().await; // without its data: now everybody really is logged out
    let gone = within("the end of the session", async {
        loop {
            let response = proxy.get("/", &[SESSION]).await;
            if response.status == 200 {
                return response;
            }
            assert_unavailable(&response);
            tokio::time::sleep(Duration::from_millis(20)).await; // it is for asking, not for waiting
        }
    });
    let response = gone.await;
    assert_eq!((response.text(), response.headers.all("set-cookie").len()), ("nobody", 1));
}

const UNREACHABLE: &str = "a server of the session store cannot be reached";

/// All that the log tells of the store as worse than information.
fn complaints(program: &Program) -> Vec<serde_json::Value> {
    let lines = program.said("");
    let is_one =
        |line: &serde_json::Value| line["level"] != "INFO" && line["message"].to_string().contains("store");
    lines.into_iter().filter(is_one).collect()
}

async fn with_store(url: &str) -> Program {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let store = format!("[session.store]\nurl = \"{url}\"");
    Program::start(Config::to(&[upstream.address()]).workers(2).with(&store)).await
}

#[tokio::test]
async fn an_outage_is_told_once_per_process_with_its_address_and_cause() {
    let mut redis = Redis::start().await;
    let program = with_store(&redis.url()).await;
    program.wait_for_fresh_cache().await;
    assert_eq!(complaints(&program), [serde_json::Value::Null; 0]);
    redis.stop();
    within("the outage", async {
        while program.said(UNREACHABLE).is_empty() {
            client::get_with(program.address, "/", &[SESSION]).await;
        }
    })
    .await;
    redis.restart().await;
    let again = "a server of the session store is reached again";
    within("the end of it", async {
        while program.said(again).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await; // lines are for reading, not for waiting
        }
    })
    .await;
    program.wait_for_fresh_cache().await;
    let said = program.said(UNREACHABLE);
    assert!(said.iter().all(|line| line["address"] == redis.address().to_string()), "{said:?}");
    // Who was connecting as it died met another cause first; each is told once.
    let mut causes: Vec<_> = said.iter().map(|line| line["cause"].to_string()).collect();
    assert!(causes.pop().unwrap().starts_with("\"connection refused"), "{said:?}");
    assert!(causes.iter().all(|cause| !cause.starts_with("\"connection refused")), "{said:?}");
    causes.dedup();
    assert_eq!(causes.len() + 1, said.len(), "{said:?}");
    assert_eq!(program.said(again).len(), 1, "{:?}", program.said("a server"));
}

#[tokio::test]
async fn the_cause_says_what_to_look_at() {
    let redis = Redis::start().await;
    let () = redis.command("CONFIG", ("SET", "requirepass", "right")).await;
    let address = redis.address();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let full = silent.local_addr().unwrap();
    for (url, cause) in [
        (format!("redis://:wrong-secret@{address}"), "the user or the password is not accepted"),
        (format!("redis://{address}"), "the user or the password is not accepted"),
        ("redis://no-such-host.invalid".to_owned(), "unknown host"),
        (format!("rediss://{address}"), "no answer within session.store.connect_timeout"),
        (format!("redis://{full}"), "no answer within session.store.connect_timeout"),
    ] {
        let program = with_store(&url).await;
        within(cause, async {
            while program.said(UNREACHABLE).is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await; // lines are for reading, not for waiting
            }
        })
        .await;
        let said = program.said(UNREACHABLE);
        assert!(said[0]["cause"].as_str().unwrap().starts_with(cause), "{url}: {said:?}");
        assert!(!format!("{said:?}").contains("secret"), "{said:?}");
    }
}
