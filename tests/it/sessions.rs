//! Whose request it is: found in the store, told to the application, made and ended on its word.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::h2::H2Client;
use crate::support::redis::Redis;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;
use crate::support::within;

const IDENTITY: &str = "[identity]\npreset = \"none\"\n\
     [identity.headers]\n\"X-User-Id\" = \"/user_id\"\n\"X-Name\" = \"/name\"\n\"X-First-Role\" = \"/roles/0\"";

struct House {
    redis: Redis,
    upstream: Upstream,
    proxy: Vestibule,
}

/// A Redis, an upstream that tells who it was told the user is, and a proxy between them.
async fn house(session: &str, store: &str) -> House {
    let upstream =
        Upstream::start(|request| Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")))
            .await;
    let redis = Redis::start().await;
    let config = Config::to(&[upstream.address()]);
    let proxy = Vestibule::start(with_store(config, &redis, session, store)).await;
    House { redis, upstream, proxy }
}

fn with_store(config: Config, redis: &Redis, session: &str, store: &str) -> Config {
    let tables = format!("[session]\n{session}\n[session.store]\nurl = \"{}\"\n{store}", redis.url());
    config.with(&tables).with(IDENTITY)
}

impl House {
    async fn who(&self, headers: &[(&str, &str)]) -> String {
        let response = self.proxy.get("/", headers).await;
        assert_eq!(response.status, 200);
        response.text().to_owned()
    }
}

fn cookies(response: &Response) -> Vec<&str> {
    response.headers.all("set-cookie")
}

#[tokio::test]
async fn a_hash_is_read_as_strings() {
    let house = house("", "").await;
    house.redis.put_session("abc", &[("user_id", "42"), ("name", "Zoë")]).await;
    assert_eq!(house.who(&[("Cookie", "session-id=abc")]).await, "42");
    let request = house.upstream.only_request();
    let name: Vec<u8> = request.headers.get("x-name").unwrap().chars().map(|c| c as u8).collect();
    assert_eq!(name, "Zoë".as_bytes());
    assert_eq!(request.headers.get("x-first-role"), None);
    assert_eq!(request.headers.get("cookie"), Some("session-id=abc"));
}

#[tokio::test]
async fn a_json_object_keeps_its_types() {
    let house = house("", "format = \"json\"\nkey = \"s:{id}:v1\"").await;
    let () = house.redis.command("SET", ("s:abc:v1", r#"{"user_id": 42, "roles": ["admin", "x"]}"#)).await;
    assert_eq!(house.who(&[("Cookie", "session-id=abc")]).await, "42");
    assert_eq!(house.upstream.only_request().headers.get("x-first-role"), Some("admin"));
}

#[tokio::test]
async fn the_id_is_found_in_any_cookie_line_or_the_header() {
    let house = house("header = \"X-Session\"", "").await;
    house.redis.put_session("abc", &[("user_id", "42")]).await;
    for headers in [
        &[("Cookie", "a=b; session-id=abc; c=d")][..],
        &[("Cookie", "a=b"), ("Cookie", "session-id=abc")],
        &[("Cookie", "session-id=abc; session-id=abc")],
        &[("X-Session", "abc")],
        &[("Cookie", "session-id=abc"), ("X-Session", "other")],
    ] {
        assert_eq!(house.who(headers).await, "42", "{headers:?}");
    }
    let mut client = H2Client::connect(house.proxy.address()).await;
    let request = http::Request::get("http://h/").header("cookie", "a=b").header("cookie", "session-id=abc");
    let response = client.request(request.body(Default::default()).unwrap()).await.unwrap();
    assert_eq!(response.body, "42");
}

#[tokio::test]
async fn what_is_no_session_id_never_reaches_the_store() {
    let house = house("", "").await;
    house.redis.put_session("abc", &[("user_id", "42")]).await;
    let too_long = format!("session-id={}", "a".repeat(129));
    for cookie in [
        "other=abc",
        "session-id=",
        "session-id=a b",
        "session-id=abc\"",
        "session-id=a:c",
        "session-id=a*c",
        "session-id=%61bc",
        "Session-Id=abc",
        "xsession-id=abc",
        too_long.as_str(),
    ] {
        let response = house.proxy.get("/", &[("Cookie", cookie)]).await;
        assert_eq!((response.status, response.text()), (200, "nobody"), "{cookie}");
        assert_eq!(cookies(&response), [""; 0], "{cookie}");
    }
    assert_eq!(house.redis.calls("pttl").await, 0);
}

#[tokio::test]
async fn a_logout_counts_at_once_and_clears_the_cookie() {
    let house = house("", "").await;
    house.redis.put_session("abc", &[("user_id", "42")]).await;
    assert_eq!(house.who(&[("Cookie", "session-id=abc")]).await, "42");
    let () = house.redis.command("DEL", "session:abc").await;
    let response = house.proxy.get("/", &[("Cookie", "session-id=abc")]).await;
    assert_eq!((response.status, response.text()), (200, "nobody"));
    let [cleared] = cookies(&response)[..] else { panic!("{response:?}") };
    assert!(cleared.starts_with("session-id=; ") && cleared.contains("Max-Age=0"), "{cleared}");
}

#[tokio::test]
async fn without_a_session_the_route_decides() {
    let upstream = Upstream::answering(Reply::text(200, "in")).await;
    let redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "42")]).await;
    let routes = "[[route]]\npath = \"/api\"\nupstream = \"app\"\non_absent = \"unauthorized\"\n\
         [[route]]\npath = \"/app\"\nupstream = \"app\"\non_absent = { redirect = \"/signin\" }";
    let config = with_store(Config::to(&[upstream.address()]), &redis, "", "").with(routes);
    let proxy = Vestibule::start(config).await;
    let gone = ("Cookie", "session-id=gone");
    redis.put_session("gone", &[("user_id", "7")]).await;
    for target in ["/", "/api", "/app"] {
        assert_eq!(proxy.get(target, &[("Cookie", "session-id=abc")]).await.text(), "in", "{target}");
        assert_eq!(proxy.get(target, &[gone]).await.text(), "in", "{target}");
    }
    let () = redis.command("DEL", "session:gone").await;
    within("the end", async { while proxy.get("/api", &[gone]).await.status == 200 {} }).await;
    for headers in [&[][..], &[gone]] {
        assert_eq!(proxy.get("/", headers).await.status, 200);
        let refused = proxy.get("/api/x", headers).await;
        crate::forwarding::assert_problem(&refused, 401);
        assert_eq!(cookies(&refused).len(), headers.len(), "an ended session's cookie is cleared");
        let navigation = [headers, &[("Accept", "text/html,*/*"), ("Sec-Fetch-Mode", "navigate")]].concat();
        let redirect = proxy.get("/app/x", &navigation).await;
        assert_eq!((redirect.status, redirect.headers.get("location")), (302, Some("/signin")));
        let fetch = [headers, &[("Accept", "application/json"), ("Sec-Fetch-Mode", "cors")]].concat();
        assert_eq!(proxy.get("/app/x", &fetch).await.status, 401);
    }
}

#[tokio::test]
async fn use_renews_a_ttl_but_never_shortens_or_invents_one() {
    for session in ["renewal = \"sync\"", "renewal = \"async\"", "cache = { enabled = false }"] {
        renews_a_ttl(house(&format!("idle_timeout = \"30m\"\n{session}"), "").await).await;
    }
}

async fn renews_a_ttl(house: House) {
    for id in ["short", "long", "forever"] {
        house.redis.put_session(id, &[("user_id", id)]).await;
    }
    let () = house.redis.command("EXPIRE", ("session:short", 60)).await;
    let () = house.redis.command("EXPIRE", ("session:long", 7200)).await;
    for id in ["short", "long", "forever"] {
        assert_eq!(house.who(&[("Cookie", &format!("session-id={id}"))]).await, id);
    }
    let ttl = async |id: &str| house.redis.command::<i64>("TTL", format!("session:{id}")).await;
    within("renewal", async { while !(1790..=1800).contains(&ttl("short").await) {} }).await;
    assert!((7190..=7200).contains(&ttl("long").await));
    assert_eq!(ttl("forever").await, -1);
}

#[tokio::test]
async fn a_session_ends_at_its_own_time_whatever_its_ttl() {
    let house = house("renewal = \"sync\"", "").await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    house.redis.put_session("over", &[("user_id", "42"), ("expires", &(now - 1).to_string())]).await;
    house.redis.put_session("alive", &[("user_id", "43"), ("expires", &(now + 60).to_string())]).await;
    let () = house.redis.command("EXPIRE", ("session:alive", 30)).await;
    let response = house.proxy.get("/", &[("Cookie", "session-id=over")]).await;
    assert_eq!((response.text(), cookies(&response).len()), ("nobody", 1));
    assert_eq!(house.who(&[("Cookie", "session-id=alive")]).await, "43");
    let ttl: i64 = house.redis.command("TTL", "session:alive").await;
    assert!((50..=60).contains(&ttl), "renewed beyond its own end or not at all: {ttl}");
}

#[tokio::test]
async fn the_cookie_can_be_hidden_from_the_application() {
    let upstream = Upstream::answering(Reply::text(200, "")).await;
    let config = Config::to(&[upstream.address()]).with("[session.cookie]\nhide = true");
    let proxy = Vestibule::start(config).await;
    proxy.get("/", &[("Cookie", "a=1; session-id=abc; b=2")]).await;
    assert_eq!(upstream.only_request().headers.get("cookie"), Some("a=1; b=2"));
}

/// An upstream that obeys `/login` and `/logout`, trusted with sessions or not.
async fn controlling(redis: &Redis, trusted: bool) -> (Upstream, Vestibule) {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/login" => {
            let word = "set; user_id=\"42\"; name=\"A \\\"b\\\"\"";
            Reply::with_headers(200, &[("Vestibule-Session", word), ("Set-Cookie", "own=1")], "in")
        }
        "/logout" => Reply::with_headers(200, &[("Vestibule-Session", "end")], "out"),
        _ => Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")),
    })
    .await;
    let config = Config::to(&[upstream.address()]).upstream(&format!("session_control = {trusted}"));
    let proxy = Vestibule::start(with_store(config, redis, "", "")).await;
    (upstream, proxy)
}

/// The `name=value` of the session cookie that an answer sets.
fn session_cookie(response: &Response) -> Option<String> {
    let cookie = cookies(response).into_iter().find(|cookie| cookie.starts_with("session-id="))?;
    Some(cookie.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn an_application_logs_in_and_out_with_one_header() {
    let redis = Redis::start().await;
    let (_upstream, proxy) = controlling(&redis, true).await;
    let login = proxy.get("/login", &[]).await;
    assert_eq!((login.status, login.text()), (200, "in"));
    assert_eq!(login.headers.get("vestibule-session"), None, "the header ends here");
    assert!(cookies(&login).contains(&"own=1"));
    let set = cookies(&login).into_iter().find(|cookie| cookie.starts_with("session-id=")).unwrap();
    for attribute in ["; Path=/", "; Max-Age=3600", "; HttpOnly", "; SameSite=Lax"] {
        assert!(set.contains(attribute), "{set}");
    }
    assert!(!set.contains("Secure"), "the client came by plain http: {set}");

    let cookie = session_cookie(&login).unwrap();
    assert_eq!(proxy.get("/", &[("Cookie", &cookie)]).await.text(), "42");
    let key = format!("session:{}", cookie.strip_prefix("session-id=").unwrap());
    assert_eq!(redis.command::<String>("HGET", (&key, "name")).await, "A \"b\"");
    let ttl: i64 = redis.command("TTL", &key).await;
    assert!((1790..=1800).contains(&ttl), "{ttl}");

    let logout = proxy.get("/logout", &[("Cookie", &cookie)]).await;
    assert_eq!(session_cookie(&logout).as_deref(), Some("session-id="));
    assert!(!redis.command::<bool>("EXISTS", &key).await);
    assert_eq!(proxy.get("/", &[("Cookie", &cookie)]).await.text(), "nobody");
}

#[tokio::test]
async fn a_session_that_could_be_created_can_be_used() {
    let redis = Redis::start().await;
    for (word, expected) in [
        ("set; user_id=\"42 \"; name=\" Ada \"", "Ada"),
        ("set; user_id=42; name=\"Zoë\"", "Zoë"),
        ("set; user_id=42; name=%\"M%c3%bcller\"", "Müller"),
        ("set; user_id=42; name=\"Ada\tLovelace\"", "Ada\tLovelace"),
    ] {
        let upstream = Upstream::start(move |request| match request.target.as_str() {
            "/login" => Reply::with_headers(200, &[("Vestibule-Session", word)], "in"),
            _ => Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")),
        })
        .await;
        let config = Config::to(&[upstream.address()]).upstream("session_control = true");
        let proxy = Vestibule::start(with_store(config, &redis, "", "")).await;
        let cookie = session_cookie(&proxy.get("/login", &[]).await).unwrap();
        assert_eq!(proxy.get("/", &[("Cookie", &cookie)]).await.text(), "42");
        let requests = upstream.requests();
        let name = requests.last().unwrap().headers.get("x-name").unwrap();
        assert_eq!(name.chars().map(|c| c as u8).collect::<Vec<_>>(), expected.as_bytes());
    }
}

#[tokio::test]
async fn a_login_never_keeps_an_id_the_client_brought() {
    let redis = Redis::start().await;
    redis.put_session("planted", &[("user_id", "mallory")]).await;
    let (_upstream, proxy) = controlling(&redis, true).await;
    for planted in ["session-id=planted", "session-id=never-existed"] {
        let cookie = session_cookie(&proxy.get("/login", &[("Cookie", planted)]).await).unwrap();
        assert_ne!(cookie, planted);
        assert_eq!(cookie.len(), "session-id=".len() + 43);
        assert_eq!(proxy.get("/", &[("Cookie", planted)]).await.text(), "nobody");
        assert_eq!(proxy.get("/", &[("Cookie", &cookie)]).await.text(), "42");
    }
}

#[tokio::test]
async fn an_upstream_without_the_right_cannot_make_or_end_sessions() {
    let redis = Redis::start().await;
    redis.put_session("abc", &[("user_id", "7")]).await;
    let (_upstream, proxy) = controlling(&redis, false).await;
    for target in ["/login", "/logout"] {
        let response = proxy.get(target, &[("Cookie", "session-id=abc")]).await;
        assert_eq!((response.status, session_cookie(&response)), (200, None));
        assert_eq!(response.headers.get("vestibule-session"), None);
    }
    assert_eq!(proxy.get("/", &[("Cookie", "session-id=abc")]).await.text(), "7");
    assert_eq!(redis.command::<Vec<String>>("KEYS", "session:*").await, ["session:abc"]);
}

#[tokio::test]
async fn many_users_at_once_are_never_taken_for_each_other() {
    let upstream =
        Upstream::start(|request| Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")))
            .await;
    let redis = Redis::start().await;
    for user in 0..50 {
        redis.put_session(&format!("id-{user}"), &[("user_id", &format!("user-{user}"))]).await;
    }
    let config = with_store(Config::to(&[upstream.address()]).workers(2), &redis, "", "");
    let proxy = Vestibule::start(config).await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..20_usize {
        let mut client = proxy.connect().await;
        clients.spawn(async move {
            for round in 0..50_usize {
                let user = (number * 7 + round * 13) % 60; // the last ten are nobody
                let cookie = format!("session-id=id-{user}");
                let response = client.request("GET", "/", &[("Cookie", &cookie)], b"").await;
                let expected = if user < 50 { format!("user-{user}") } else { "nobody".to_owned() };
                assert_eq!(response.text(), expected);
            }
        });
    }
    let finished: Vec<()> = clients.join_all().await;
    assert_eq!((finished.len(), upstream.requests().len()), (20, 1000));
}

#[tokio::test]
async fn embedded_sessions_are_shared_by_all_workers() {
    let upstream = Upstream::start(|request| match request.target.as_str() {
        "/login" => Reply::with_headers(200, &[("Vestibule-Session", "set; user_id=42")], ""),
        _ => Reply::text(200, request.headers.get("x-user-id").unwrap_or("nobody")),
    })
    .await;
    let config = Config::to(&[upstream.address()]).workers(4).upstream("session_control = true");
    let proxy = Vestibule::start(config.with(IDENTITY)).await;
    let mut ids = HashSet::new();
    for _ in 0..8 {
        let cookie = session_cookie(&proxy.get("/login", &[]).await).unwrap();
        for _ in 0..8 {
            assert_eq!(proxy.get("/", &[("Cookie", &cookie)]).await.text(), "42");
        }
        ids.insert(cookie);
    }
    assert_eq!(ids.len(), 8);
}

#[tokio::test]
async fn an_expired_key_is_an_ended_session() {
    let house = house("idle_timeout = \"off\"", "").await;
    house.redis.put_session("abc", &[("user_id", "42")]).await;
    let () = house.redis.command("PEXPIRE", ("session:abc", 3_000)).await;
    assert_eq!(house.who(&[("Cookie", "session-id=abc")]).await, "42");
    tokio::time::sleep(Duration::from_millis(3_050)).await; // the key's own lifetime
    let response = house.proxy.get("/", &[("Cookie", "session-id=abc")]).await;
    assert_eq!((response.text(), cookies(&response).len()), ("nobody", 1));
}
