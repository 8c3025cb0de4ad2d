//! What ties a client to its instance, other than our own cookie, and what becomes of ties.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Vestibule;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Answers with its name and logs everybody in with the cookie `SID`, whose value ends with `suffix`.
async fn app(name: &'static str, suffix: &'static str) -> Upstream {
    Upstream::start(move |request| {
        let known = request.headers.get("cookie").is_some_and(|cookies| cookies.contains("SID="));
        let set_cookie = format!("SID=s-{name}{suffix}; Path=/; HttpOnly");
        let headers = [("set-cookie", set_cookie.as_str())];
        Reply::with_headers(200, if known { &[] } else { &headers }, name)
    })
    .await
}

async fn apps() -> [Upstream; 3] {
    [app("a", "").await, app("b", "").await, app("c", "").await]
}

fn addresses(apps: &[Upstream]) -> Vec<SocketAddr> {
    apps.iter().map(Upstream::address).collect()
}

/// A vestibule in sticky mode that shares its secret with all others.
async fn sticky(apps: &[Upstream], upstream: &str) -> Vestibule {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&secret, SECRET).unwrap();
    let tables =
        format!("[session]\nmode = \"sticky\"\n[affinity]\nsecret = \"file:{}\"", secret.path().display());
    Vestibule::start(Config::to(&addresses(apps)).upstream(upstream).with(&tables)).await
}

fn cookie(response: &Response) -> Option<String> {
    let line = response.headers.get("set-cookie")?;
    Some(line.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn the_applications_cookie_carries_the_tie_and_the_application_never_sees_it() {
    let apps = apps().await;
    let stick = "stick = { app_cookie = \"SID\" }";
    let proxies = [sticky(&apps, stick).await, sticky(&apps, stick).await];
    for _ in 0..6 {
        let login = proxies[0].get("/", &[]).await;
        let session = cookie(&login).unwrap();
        let own = format!("SID=s-{}", login.text());
        assert!(session.starts_with(&format!("{own}~")) && login.headers.all("set-cookie").len() == 1);
        for proxy in proxies.iter().cycle().take(6) {
            let next = proxy.get("/", &[("Cookie", &format!("x=1; {session}"))]).await;
            assert_eq!((next.text(), cookie(&next)), (login.text(), None));
        }
        let place = ["a", "b", "c"].iter().position(|name| *name == login.text()).unwrap();
        let seen = apps[place].requests().pop().unwrap().headers.get("cookie").unwrap().to_owned();
        assert_eq!(seen, format!("x=1; {own}"));
    }
}

#[tokio::test]
async fn what_the_application_appends_itself_leads_back_to_it() {
    let apps = apps().await;
    let named: String = apps
        .iter()
        .zip(["one", "two", "three"])
        .map(|(app, name)| {
            format!("[[upstream.instance]]\naddress = \"{}\"\nname = \"{name}\"\n", app.address())
        })
        .collect();
    let config = Config::to(&[]).upstream("stick = { app_suffix = \"SID\" }").instance(&named);
    let proxy = Vestibule::start(config.with("[session]\nmode = \"sticky\"")).await;
    for (suffix, name) in [("one", "a"), ("two", "b"), ("three", "c")] {
        for _ in 0..4 {
            let answer = proxy.get("/", &[("Cookie", &format!("SID=abc.def.{suffix}"))]).await;
            assert_eq!(answer.text(), name);
        }
    }
    assert_eq!(proxy.metric("affinity_total", "outcome=\"kept\"").await, 12.0);
    assert_eq!(proxy.get("/", &[("Cookie", "SID=abc.nobody")]).await.status, 200);
    assert_eq!(proxy.metric("affinity_total", "outcome=\"new\"").await, 1.0);
}

#[tokio::test]
async fn a_hash_leads_everybody_to_the_same_instance_through_every_vestibule() {
    let apps = apps().await;
    let stick = "stick = { hash = \"session\" }";
    let proxies = [sticky(&apps, stick).await, sticky(&apps, stick).await];
    let mut met = HashMap::<String, HashSet<String>>::new();
    for turn in 0..60 {
        let id = format!("session-id=id-{}", turn % 20);
        for proxy in &proxies {
            let answer = proxy.get("/", &[("Cookie", &id)]).await;
            met.entry(id.clone()).or_default().insert(answer.text().to_owned());
        }
    }
    assert!(met.values().all(|instances| instances.len() == 1));
    assert_eq!(met.values().flatten().collect::<HashSet<_>>().len(), 3);
}

#[tokio::test]
async fn a_single_active_route_has_one_instance_and_another_only_without_it() {
    let mut apps = apps().await;
    let config = Config::to(&addresses(&apps)).route("single = true");
    let health = "[upstream.health]\ninterval = \"20ms\"\ntimeout = \"1m\"\nfall = 1\nrise = 1";
    let config = config.upstream(health);
    let proxies = [Vestibule::start(config.clone()).await, Vestibule::start(config).await];
    let active = proxies[0].get("/", &[]).await.text().to_owned();
    for proxy in proxies.iter().cycle().take(20) {
        assert_eq!(proxy.get("/", &[]).await.text(), active);
    }
    let names = ["a", "b", "c"];
    let place = names.iter().position(|name| *name == active).unwrap();
    apps[place].stop().await;
    let heir = proxies[0].get("/", &[]).await.text().to_owned();
    assert_ne!(heir, active);
    for proxy in proxies.iter().cycle().take(20) {
        assert_eq!(proxy.get("/", &[]).await.text(), heir);
    }
}

#[tokio::test]
async fn whoever_may_not_be_moved_waits_for_the_instance_until_it_is_taken_out() {
    let mut apps = apps().await;
    let proxy = sticky(&apps, "on_lost = \"fail\"").await;
    let first = proxy.get("/", &[]).await;
    let tie = first.headers.all("set-cookie").into_iter().find(|line| line.starts_with("vestibule")).unwrap();
    let tie = tie.split(';').next().unwrap().to_owned();
    let place = ["a", "b", "c"].iter().position(|name| *name == first.text()).unwrap();
    apps[place].stop().await;
    // The first finds out that nobody listens there.
    assert_eq!(proxy.get("/", &[("Cookie", &tie)]).await.status, 502);
    let refused = proxy.get("/", &[("Cookie", &tie)]).await;
    assert_eq!((refused.status, refused.headers.get("retry-after")), (503, Some("1")));
    assert!(refused.text().contains("keeps your session") && cookie(&refused).is_none());
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    let plan = proxy.handle.plan();
    plan.balancers()[0].upstream().instances()[place].set_state(vestibule::config::InstanceState::Down);
    plan.balancers()[0].refresh();
    let moved = proxy.get("/", &[("Cookie", &tie)]).await;
    assert_eq!(moved.status, 200);
    assert_ne!(moved.text(), first.text());
}

#[tokio::test]
async fn only_idle_sessions_move_to_instances_that_came_later() {
    let apps = apps().await;
    let late = format!("[[upstream.instance]]\naddress = \"{}\"\nstate = \"drain\"", apps[2].address());
    let rebalance = "[upstream.rebalance]\nper_second = 1000\nidle_over = \"6s\"";
    let config = Config::to(&addresses(&apps[..2])).upstream(rebalance).instance(&late);
    let proxy = Vestibule::start(config.with("[session]\nmode = \"sticky\"")).await;
    let mut ties = Vec::new();
    for _ in 0..90 {
        let answer = proxy.get("/", &[]).await;
        let tie = answer.headers.all("set-cookie").into_iter().find(|line| line.starts_with("vestibule"));
        ties.push((tie.unwrap().split(';').next().unwrap().to_owned(), answer.text().to_owned()));
    }
    let plan = proxy.handle.plan();
    // Whole seconds are compared, so those who came in this one did not come before.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    plan.balancers()[0].upstream().instances()[2].set_state(vestibule::config::InstanceState::Ready);
    plan.balancers()[0].refresh();
    let mut moved = 0;
    for (place, (tie, instance)) in ties.iter().enumerate() {
        let is_idle = place >= 30;
        if place == 30 {
            tokio::time::sleep(Duration::from_millis(8_100)).await; // the others become idle, a quarter more than 6 s
        }
        let answer = proxy.get("/", &[("Cookie", tie)]).await;
        if answer.text() != instance {
            assert!(is_idle && answer.text() == "c");
            moved += 1;
        }
    }
    assert!((8..=32).contains(&moved), "{moved} of 60, a third expected");
    assert_eq!(proxy.metric("affinity_total", "outcome=\"moved\"").await, f64::from(moved));
    assert_eq!(proxy.metric("affinity_total", "outcome=\"lost\"").await, 0.0);
}

/// The cookies that an instance was sent with its last request.
fn last_cookies(app: &Upstream) -> String {
    app.requests().pop().unwrap().headers.get("cookie").unwrap_or_default().to_owned()
}

/// Answers with its name and logs everybody in who asks for `/login`, with this `Set-Cookie`.
async fn logging_in(name: &'static str, set_cookie: &str) -> Upstream {
    let set_cookie = set_cookie.to_owned();
    Upstream::start(move |request| {
        let headers = [("set-cookie", set_cookie.as_str())];
        Reply::with_headers(200, if request.target == "/login" { &headers } else { &[] }, name)
    })
    .await
}

#[tokio::test]
async fn an_applications_cookie_of_any_form_comes_back_as_it_was_and_keeps_the_tie() {
    let stick = "stick = { app_cookie = \"SID\" }";
    for value in ["abc", "\"abc\"", "\"a b,c\\d\"", "\"abc", "abc\"", "a~b", "\"a~b\"", "a=\"b\"", "\"a\"b\""]
    {
        let line = format!("SID = {value} ; Path=/; HttpOnly");
        let apps = [logging_in("a", &line).await, logging_in("b", &line).await];
        let proxy = sticky(&apps, stick).await;
        for _ in 0..2 {
            let login = proxy.get("/login", &[]).await;
            let cookie = cookie(&login).unwrap();
            let kept = cookie.split_once('=').unwrap().1.trim();
            assert_ne!(kept, value, "{cookie}");
            assert_eq!(
                kept.len() > 1 && kept.ends_with('"'),
                value == "\"a\"b\"" || is_quoted(value),
                "{kept}"
            );
            let place = usize::from(login.text() == "b");
            // Some clients send the value without its quotes.
            let bare = if is_quoted(value) { kept.trim_matches('"') } else { kept };
            let own = if is_quoted(value) { value.trim_matches('"') } else { value };
            for (sent, seen) in [(kept, value), (bare, own)] {
                for _ in 0..2 {
                    let next = proxy.get("/", &[("Cookie", &format!("x=1; SID={sent}; y=2"))]).await;
                    assert_eq!(next.text(), login.text(), "{sent}");
                    assert_eq!(last_cookies(&apps[place]), format!("x=1; SID={seen}; y=2"));
                }
            }
        }
    }
}

fn is_quoted(value: &str) -> bool {
    value.len() > 1 && value.starts_with('"') && value.ends_with('"')
}

#[tokio::test]
async fn an_applications_cookie_sealed_by_an_earlier_process_reaches_it_as_its_own() {
    for (value, quote) in [("abc", ""), ("\"abc\"", "\"")] {
        let line = format!("SID={value}; Path=/");
        let apps = [logging_in("a", &line).await, logging_in("b", &line).await];
        let config = Config::to(&addresses(&apps)).upstream("stick = { app_cookie = \"SID\" }");
        let config = config.with("[session]\nmode = \"sticky\"");
        let (before, after) = (Vestibule::start(config.clone()).await, Vestibule::start(config).await);
        let sealed = cookie(&before.get("/login", &[]).await).unwrap();
        let next = after.get("/", &[("Cookie", &sealed)]).await;
        assert_eq!(last_cookies(&apps[usize::from(next.text() == "b")]), format!("SID={value}"));
        // What only looks a little like it is the application's own.
        let own = format!("SID={quote}abc~def{quote}");
        let next = after.get("/", &[("Cookie", &own)]).await;
        assert_eq!(last_cookies(&apps[usize::from(next.text() == "b")]), own);
    }
}

#[tokio::test]
async fn a_cookie_that_would_grow_too_large_for_a_browser_is_left_as_it_is() {
    let line = format!("SID={}; Path=/", "x".repeat(4050));
    let apps = [logging_in("a", &line).await, logging_in("b", &line).await];
    let proxy = sticky(&apps, "stick = { app_cookie = \"SID\" }").await;
    let login = proxy.get("/login", &[]).await;
    assert_eq!(login.headers.get("set-cookie"), Some(line.as_str()));
}

#[tokio::test]
async fn quotes_around_a_cookie_change_nothing_whatever_ties_the_client() {
    let apps = [app("a", "").await, app("b", "").await];
    let named: String = apps
        .iter()
        .zip(["one", "two"])
        .map(|(app, name)| {
            format!("[[upstream.instance]]\naddress = \"{}\"\nname = \"{name}\"\n", app.address())
        })
        .collect();
    let config = Config::to(&[]).upstream("stick = { app_suffix = \"SID\" }").instance(&named);
    let proxy = Vestibule::start(config.with("[session]\nmode = \"sticky\"")).await;
    for (suffix, name) in [("one", "a"), ("two", "b")] {
        for quote in ["", "\""] {
            for _ in 0..3 {
                let cookie = format!("SID={quote}abc.def.{suffix}{quote}");
                let answer = proxy.get("/", &[("Cookie", &cookie)]).await;
                assert_eq!(answer.text(), name, "{cookie}");
            }
        }
    }
    assert_eq!(proxy.metric("affinity_total", "outcome=\"kept\"").await, 12.0);

    for (key, name) in [("cookie:k", "k"), ("session", "session-id")] {
        let proxy = sticky(&apps, &format!("stick = {{ hash = \"{key}\" }}")).await;
        for value in 0..16 {
            let bare = proxy.get("/", &[("Cookie", &format!("{name}=v{value}"))]).await;
            let quoted = proxy.get("/", &[("Cookie", &format!("{name}=\"v{value}\""))]).await;
            assert_eq!(bare.text(), quoted.text(), "{key} {value}");
        }
    }

    let proxy = sticky(&apps, "").await;
    for _ in 0..4 {
        let first = proxy.get("/", &[]).await;
        let own = first.headers.all("set-cookie").into_iter().find(|line| line.starts_with("vestibule"));
        let (name, value) = own.unwrap().split(';').next().unwrap().split_once('=').unwrap();
        let next = proxy.get("/", &[("Cookie", &format!("{name}=\"{value}\""))]).await;
        assert_eq!(next.text(), first.text());
    }
    assert_eq!(proxy.metric("affinity_total", "outcome=\"forged\"").await, 0.0);
}
