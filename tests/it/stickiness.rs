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
    let health = "[upstream.health]\ninterval = \"20ms\"\ntimeout = \"500ms\"\nfall = 1\nrise = 1";
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
    let rebalance = "[upstream.rebalance]\nper_second = 1000\nidle_over = \"3s\"";
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
            tokio::time::sleep(Duration::from_millis(3100)).await;
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
