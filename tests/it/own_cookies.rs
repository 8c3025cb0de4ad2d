//! The attributes of the cookies that keep a client's instance, mode and version.

use std::process::Output;

use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Vestibule, command};

/// All three kinds of our cookies at once, for clients that came by https or not.
async fn start(app: &Upstream, attributes: &str) -> Vestibule {
    let tables = format!(
        "[session]\nmode = {{ compare = {{ sticky = 50, local = 50 }} }}\n[affinity]\n{attributes}\n\
         [forwarding]\ntrusted_peers = [\"127.0.0.0/8\"]\n\
         [[upstream]]\nname = \"new\"\n[[upstream.instance]]\naddress = \"{}\"",
        app.address()
    );
    let canary = "[route.canary]\nupstream = \"new\"\npercent = \"50%\"";
    Vestibule::start(Config::to(&[app.address()]).route(canary).with(&tables)).await
}

/// What follows the values of the three cookies, in the order of their names.
fn attributes(response: &Response) -> Vec<String> {
    let mut lines: Vec<_> = response.headers.all("set-cookie");
    lines.sort_unstable();
    assert_eq!(lines.len(), 3, "{lines:?}");
    lines.into_iter().map(|line| line.split_once("; ").unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn all_our_cookies_have_the_attributes_that_are_configured() {
    let app = Upstream::answering(Reply::text(200, "a")).await;
    let https = [("X-Forwarded-Proto", "https")];
    for (keys, over_http, over_https) in [
        (
            "",
            "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax",
            "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax; Secure",
        ),
        (
            "same_site = \"none\"\nsecure = \"always\"\npartitioned = true",
            "Path=/; Max-Age=43200; HttpOnly; SameSite=None; Secure; Partitioned",
            "Path=/; Max-Age=43200; HttpOnly; SameSite=None; Secure; Partitioned",
        ),
        // Browsers refuse the one and the other without Secure.
        (
            "same_site = \"none\"\npartitioned = true",
            "Path=/; Max-Age=43200; HttpOnly; SameSite=Lax",
            "Path=/; Max-Age=43200; HttpOnly; SameSite=None; Secure; Partitioned",
        ),
        (
            "same_site = \"strict\"\nsecure = \"never\"\npath = \"/app\"\ndomain = \"example.com\"\nmax_age = \"60s\"",
            "Path=/app; Domain=example.com; Max-Age=60; HttpOnly; SameSite=Strict",
            "Path=/app; Domain=example.com; Max-Age=60; HttpOnly; SameSite=Strict",
        ),
    ] {
        let proxy = start(&app, keys).await;
        assert_eq!(attributes(&proxy.get("/", &[]).await), [over_http; 3], "{keys}");
        assert_eq!(attributes(&proxy.get("/", &https).await), [over_https; 3], "{keys}");
    }
}

#[tokio::test]
async fn the_session_cookie_is_partitioned_likewise() {
    let app =
        Upstream::answering(Reply::with_headers(200, &[("Vestibule-Session", "set; user_id=\"a\"")], ""))
            .await;
    let cookie = "[session.cookie]\nsame_site = \"none\"\nsecure = \"always\"\npartitioned = true";
    let config = Config::to(&[app.address()]).upstream("session_control = true").with(cookie);
    let proxy = Vestibule::start(config).await;
    let answer = proxy.get("/", &[]).await;
    let line = answer.headers.get("set-cookie").unwrap();
    assert!(line.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=None; Secure; Partitioned"), "{line}");
}

fn check(config: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    command().args(["check", "-c"]).arg(file.path()).output().unwrap()
}

#[test]
fn what_browsers_would_refuse_is_refused() {
    let affinity = |keys: &str| {
        let tables = format!("[session]\nmode = \"sticky\"\n[affinity]\n{keys}");
        Config::to(&["127.0.0.1:5001".parse().unwrap()]).with(&tables).toml()
    };
    for (keys, place, why) in [
        ("same_site = \"none\"\nsecure = \"never\"", "affinity.secure", "needs the attribute Secure"),
        ("partitioned = true\nsecure = \"never\"", "affinity.secure", "needs the attribute Secure"),
        ("cookie = \"__Secure-tie\"\nsecure = \"never\"", "affinity.secure", "needs the attribute Secure"),
        ("cookie = \"__Host-tie\"\npath = \"/app\"", "affinity.path", "has no domain, and its path is `/`"),
        ("cookie = \"__Host-tie\"\ndomain = \"example.com\"", "affinity.domain", "has no domain"),
        ("cookie = \"__host-tie\"\ndomain = \"example.com\"", "affinity.domain", "has no domain"),
    ] {
        let output = check(&affinity(keys));
        let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        assert!(!output.status.success() && said.contains(place) && said.contains(why), "{keys}: {said}");
    }
    for keys in ["cookie = \"__Host-tie\"\nsecure = \"always\"", "same_site = \"none\"\npartitioned = true"] {
        assert!(check(&affinity(keys)).status.success(), "{keys}");
    }
}
