//! A second version gets the clients it was given, keeps them, and loses them when it is worse.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::command::run;
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::service::{Service, send};
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Program, Vestibule, command, write};
use crate::support::within;

const TOKEN: &str = "operator-token-0123456789";
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const CANARIES: &str = "/api/v1/canaries";

/// An instance that answers `/STATUS…` with this status and everything else with 200, with its name and the
/// cookies that it was sent.
fn instance(name: &'static str) -> Service {
    Service::start(async move |request, wire| {
        let status = request.start_line.split(['/', ' ']).nth(2).and_then(|word| word.parse().ok());
        let cookies = request.headers.all("cookie").join("; ");
        send(wire, status.unwrap_or(200), &[], &format!("{name} {cookies}")).await
    })
}

fn pair() -> [Service; 2] {
    [instance("stable"), instance("canary")]
}

/// The first is the route's upstream, the second its canary, of which `canary` tells the rest.
fn config(instances: [SocketAddr; 2], canary: &str) -> Config {
    let [stable, second] = instances;
    let canary = format!(
        "[route.canary]\nupstream = \"v2\"\n{canary}\n\
         [[upstream]]\nname = \"v2\"\n[[upstream.instance]]\naddress = \"{second}\""
    );
    Config::to(&[stable]).token(TOKEN).with(&canary)
}

async fn start(pair: &[Service; 2], canary: &str) -> Vestibule {
    let addresses = [pair[0].address(), pair[1].address()];
    Vestibule::start(config(addresses, canary).with("[session]\nmode = \"local\"")).await
}

async fn call(admin: SocketAddr, document: Value) -> Response {
    let token = format!("Bearer {TOKEN}");
    let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
    Client::connect(admin).await.request("POST", CANARIES, &headers, document.to_string().as_bytes()).await
}

async fn set(proxy: &Vestibule, percent: f64) {
    let answer = call(proxy.admin_address(), json!({ "route": "/", "percent": percent })).await;
    assert_eq!((answer.status, answer.json()["percent"].as_f64()), (200, Some(percent)));
}

fn side(response: &Response) -> &str {
    response.text().split(' ').next().unwrap()
}

/// The `name=value` of the cookie that keeps the side, if the answer sets one.
fn kept(response: &Response) -> Option<String> {
    let cookie = response.headers.get("set-cookie")?;
    assert!(cookie.starts_with("vestibule-affinity-canary-"), "{cookie}");
    Some(cookie.split(';').next().unwrap().to_owned())
}

/// A new client's side and the cookie that keeps it.
async fn arrive(proxy: &Vestibule) -> (String, String) {
    let answer = proxy.get("/", &[]).await;
    (side(&answer).to_owned(), kept(&answer).unwrap())
}

#[tokio::test]
async fn a_client_keeps_its_side_whatever_the_share_until_a_rollback() {
    let pair = pair();
    let proxy = start(&pair, "percent = \"50%\"").await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(arrive(&proxy).await);
    }
    assert!(clients.iter().any(|(side, _)| side == "canary"));
    assert!(clients.iter().any(|(side, _)| side == "stable"));
    for share in [0.0, 100.0, 12.5] {
        set(&proxy, share).await;
        for (expected, cookie) in &clients {
            let answer = proxy.get("/", &[("Cookie", &format!("mine=1; {cookie}"))]).await;
            assert_eq!((side(&answer), kept(&answer)), (expected.as_str(), None));
            assert!(answer.text().ends_with(" mine=1"), "the instance saw the cookie: {}", answer.text());
        }
    }
    assert_eq!(call(proxy.admin_address(), json!({ "route": "/", "action": "rollback" })).await.status, 200);
    for (_, cookie) in &clients {
        let answer = proxy.get("/", &[("Cookie", cookie)]).await;
        assert_eq!((side(&answer), kept(&answer)), ("stable", None));
    }
    assert_eq!(proxy.metric("canary_state", "state=\"rolled_back\"").await, 1.0);
    assert_eq!(proxy.metric("canary_requests_total", "").await, 200.0);
}

#[tokio::test]
async fn a_new_share_is_for_new_clients_at_once() {
    let pair = pair();
    let proxy = start(&pair, "percent = \"0%\"").await;
    for (share, expected) in [(100.0, "canary"), (0.0, "stable")] {
        set(&proxy, share).await;
        for _ in 0..20 {
            assert_eq!(arrive(&proxy).await.0, expected);
        }
        assert_eq!(proxy.metric("canary_percent", "route=\"/\"").await, share);
    }
    assert_eq!(call(proxy.admin_address(), json!({ "route": "/", "action": "promote" })).await.status, 200);
    assert_eq!(arrive(&proxy).await.0, "canary");
}

#[tokio::test]
async fn a_cookie_that_is_not_ours_chooses_nothing_and_is_replaced() {
    let pair = pair();
    let (proxy, stranger) =
        (start(&pair, "percent = \"0%\"").await, start(&pair, "percent = \"100%\"").await);
    let (from, cookie) = arrive(&stranger).await;
    assert_eq!(from, "canary");
    let (name, value) = cookie.split_once('=').unwrap();
    for value in [value, "", "canary", "1"] {
        let answer = proxy.get("/", &[("Cookie", &format!("{name}={value}"))]).await;
        assert_eq!(side(&answer), "stable", "{value}");
        assert_ne!(kept(&answer).unwrap(), format!("{name}={value}"));
    }
}

#[tokio::test]
async fn requests_that_match_go_to_the_canary_whatever_the_share() {
    let pair = pair();
    let matches = "percent = \"0%\"
[[route.canary.match]]
header = { name = \"X-Canary\", value = \"yes\" }
cookie = { name = \"team\", pattern = \"(web|mobile)-[0-9]+\" }
[[route.canary.match]]
device = \"tablet\"
[[route.canary.match]]
country = { header = \"CF-IPCountry\", values = [\"DE\", \"FR\"] }";
    let proxy = start(&pair, matches).await;
    let ipad = "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X)";
    for (headers, expected) in [
        (&[("X-Canary", "yes"), ("Cookie", "team=web-7")][..], "canary"),
        (&[("X-Canary", "yes")], "stable"),
        (&[("X-Canary", "yes"), ("Cookie", "team=web-")], "stable"),
        (&[("User-Agent", ipad)], "canary"),
        (&[("User-Agent", "curl/8.0")], "stable"),
        (&[("CF-IPCountry", "FR")], "canary"),
        (&[("CF-IPCountry", "US")], "stable"),
    ] {
        assert_eq!(side(&proxy.get("/", headers).await), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn a_user_of_the_list_goes_to_the_canary_and_a_client_cannot_say_that_it_is_one() {
    let application = |name: &'static str| {
        Upstream::start(move |request| match request.target.strip_prefix("/login/") {
            Some(user) => {
                let word = format!("set; user_id=\"{user}\"");
                Reply::with_headers(200, &[("Vestibule-Session", &word)], "")
            }
            None => Reply::text(200, name),
        })
    };
    let (stable, canary) = (application("stable").await, application("canary").await);
    let users = "percent = \"0%\"\n[[route.canary.match]]\nusers = [\"7\", \"42\"]";
    let config = config([stable.address(), canary.address()], users).upstream("session_control = true");
    let proxy = Vestibule::start(config).await;
    for (user, expected) in [("42", "canary"), ("43", "stable")] {
        let login = proxy.get(&format!("/login/{user}"), &[]).await;
        let cookies = login.headers.all("set-cookie");
        let cookie = cookies.iter().find(|cookie| cookie.starts_with("session-id=")).unwrap();
        let cookie = cookie.split(';').next().unwrap();
        assert_eq!(proxy.get("/", &[("Cookie", cookie)]).await.text(), expected);
    }
    assert_eq!(proxy.get("/", &[("X-User-Id", "42")]).await.text(), "stable");
}

#[tokio::test]
async fn two_vestibules_with_one_secret_agree_on_every_session() {
    let (pair, secret) = (pair(), write(SECRET));
    let secret = format!("[affinity]\nsecret = \"file:{}\"", secret.path().display());
    let config = config([pair[0].address(), pair[1].address()], "percent = \"30%\"")
        .with("[session]\nmode = \"local\"")
        .with(&secret);
    let [one, other] = [Vestibule::start(config.clone()).await, Vestibule::start(config).await];
    for n in 0..100 {
        let session = format!("session-id=s{n}");
        let here = one.get("/", &[("Cookie", &session)]).await;
        assert_eq!(side(&here), side(&other.get("/", &[("Cookie", &session)]).await));
        let by_cookie = other.get("/", &[("Cookie", &kept(&here).unwrap())]).await;
        assert_eq!((side(&by_cookie), kept(&by_cookie)), (side(&here), None));
    }
}

/// Sends new clients until the canary is in `state`; returns how many went to it.
async fn load_until(proxy: &Vestibule, target: &str, state: &str) -> usize {
    let mut connection = proxy.connect().await;
    let mut to_canary = 0;
    within("decision", async {
        loop {
            for _ in 0..200 {
                let answer = connection.request("GET", target, &[], b"").await;
                to_canary += usize::from(side(&answer) == "canary");
            }
            if proxy.metric("canary_state", &format!("state=\"{state}\"")).await == 1.0 {
                return to_canary;
            }
            tokio::time::sleep(Duration::from_millis(20)).await; // the comparison looks once a second
        }
    })
    .await
}

const AUTO: &str = "percent = \"50%\"\n[route.canary.auto]\nsteps = [\"100%\"]\nhold = \"1s\"\n\
                    max_error_increase = \"5%\"\nmax_latency_increase = \"1000%\"";

#[tokio::test]
async fn a_canary_that_answers_500_is_rolled_back_by_itself_and_its_clients_with_it() {
    let pair = [
        Service::telling(|_| "stable".to_owned()),
        Service::start(async |_, wire| send(wire, 500, &[], "canary").await),
    ];
    let proxy = start(&pair, AUTO).await;
    let (_, cookie) = loop {
        let client = arrive(&proxy).await;
        if client.0 == "canary" {
            break client;
        }
    };
    load_until(&proxy, "/", "rolled_back").await;
    assert_eq!(proxy.metric("canary_percent", "").await, 0.0);
    let answer = proxy.get("/", &[("Cookie", &cookie)]).await;
    assert_eq!((answer.status, answer.text()), (200, "stable"));
    let failed = proxy.metric("canary_errors_total", "side=\"canary\"").await;
    assert!(failed > 0.0 && failed == proxy.metric("canary_requests_total", "side=\"canary\"").await);
    assert_eq!(proxy.metric("canary_errors_total", "side=\"stable\"").await, 0.0);
}

#[tokio::test]
async fn a_canary_nobody_can_reach_is_rolled_back_and_an_equal_one_promoted() {
    let mut pair = pair();
    pair[1].kill();
    let dead = start(&pair, AUTO).await;
    let mut connection = dead.connect().await;
    within("rollback", async {
        while dead.metric("canary_state", "state=\"rolled_back\"").await != 1.0 {
            for _ in 0..100 {
                connection.request("GET", "/", &[], b"").await;
            }
        }
    })
    .await;

    // Bad requests of the clients are no fault of either version.
    let equal = self::pair();
    let proxy = start(&equal, AUTO).await;
    load_until(&proxy, "/404", "promoted").await;
    assert_eq!(proxy.metric("canary_percent", "").await, 100.0);
    assert_eq!(proxy.metric("canary_errors_total", "").await, 0.0);
    assert_eq!(arrive(&proxy).await.0, "canary");
}

#[tokio::test]
async fn in_sticky_mode_each_version_keeps_its_own_ties() {
    let pair = pair();
    let config = config([pair[0].address(), pair[1].address()], "percent = \"100%\"");
    let proxy = Vestibule::start(config.with("[session]\nmode = \"sticky\"")).await;
    let answer = proxy.get("/", &[]).await;
    let cookies: Vec<&str> = answer.headers.all("set-cookie");
    let named = |name: &str| cookies.iter().any(|cookie| cookie.starts_with(name));
    assert_eq!((side(&answer), cookies.len()), ("canary", 2));
    assert!(named("vestibule-affinity-v2=") && named("vestibule-affinity-canary-"), "{cookies:?}");
}

#[tokio::test]
async fn the_api_lists_and_steers_and_says_what_is_wrong() {
    let pair = pair();
    let proxy = start(&pair, AUTO).await;
    let admin = proxy.admin_address();
    let token = format!("Bearer {TOKEN}");
    let get = Client::connect(admin).await.request("GET", CANARIES, &[("Authorization", &token)], b"").await;
    let row = &get.json()["canaries"][0];
    let expected = json!({
        "route": "/", "stable": "app", "canary": "v2", "state": "comparing", "percent": 50.0,
        "comparison": row["comparison"],
    });
    assert_eq!((get.status, row), (200, &expected));
    for (document, status) in [
        (json!({ "route": "/nowhere", "percent": 1 }), 422),
        (json!({ "route": "/", "percent": 101 }), 422),
        (json!({ "route": "/" }), 400),
        (json!({ "route": "/", "action": "undo" }), 400),
    ] {
        assert_eq!(call(admin, document.clone()).await.status, status, "{document}");
    }
    let anonymous = Client::connect(admin).await.request("GET", CANARIES, &[], b"").await;
    assert_eq!(anonymous.status, 401);
    assert_eq!(proxy.metric("canary_percent", "").await, 50.0);
}

/// `vestibule canaries` with these arguments; standard output, or standard error of a failure.
async fn canaries(admin: SocketAddr, arguments: &[&str]) -> Result<String, String> {
    let mut command: Command = command();
    let admin = admin.to_string();
    command.arg("canaries").args(arguments).args(["--admin", &admin]).stdin(Stdio::null());
    command.env("VESTIBULE_ADMIN_TOKEN", TOKEN);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

#[tokio::test]
async fn the_command_steers_a_running_vestibule() {
    let pair = pair();
    let config = config([pair[0].address(), pair[1].address()], "percent = \"10%\"");
    let program = Program::start(config.with("[session]\nmode = \"local\"")).await;
    let admin = program.admin;
    let line = |percent: &str, state: &str| Ok(format!("/: {percent}% of app to v2, {state}\n"));
    assert_eq!(canaries(admin, &["list"]).await, line("10", "manual"));
    assert_eq!(canaries(admin, &["set", "/", "12.5%"]).await, line("12.5", "manual"));
    assert_eq!(canaries(admin, &["promote", "/"]).await, line("100", "promoted"));
    assert_eq!(canaries(admin, &["rollback", "/"]).await, line("0", "rolled_back"));
    assert_eq!(canaries(admin, &["list"]).await, line("0", "rolled_back"));
    let refused = canaries(admin, &["set", "/x", "1"]).await.unwrap_err();
    assert!(refused.contains("422") && refused.contains("no route with a canary"), "{refused}");
    let logged = program.process.stderr();
    let decisions = logged.iter().filter(|line| line.contains("canary decision")).count();
    assert_eq!(decisions, 3, "{logged:?}");
}

#[tokio::test]
async fn a_list_without_canaries_says_so() {
    let instance = Upstream::answering(Reply::text(200, "")).await;
    let proxy = Vestibule::start(Config::to(&[instance.address()]).token(TOKEN)).await;
    let list = |more: &[&str]| {
        let mut list = command();
        list.args(["canaries", "list", "--admin", &proxy.admin_address().to_string()]).args(more);
        list.env("VESTIBULE_ADMIN_TOKEN", TOKEN);
        run(list)
    };
    let said = "no canaries are configured: a route has one with [route.canary]\n".to_owned();
    assert_eq!(list(&[]).await, (Some(0), String::new(), said));
    let (code, json, complaint) = list(&["--json"]).await;
    assert_eq!((code, complaint.as_str()), (Some(0), ""));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({ "canaries": [] }));
}
