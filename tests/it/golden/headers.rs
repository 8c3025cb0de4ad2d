//! What is added to requests, responses and trailers, and what our own responses and requests are.

use std::fmt::Write;

use serde_json::Value;

use super::assert_golden;
use crate::support::RefusedPort;
use crate::support::client::Response;
use crate::support::config::Config;
use crate::support::upstream::{Reply, Request, Upstream};
use crate::support::vestibule::{Vestibule, command};
use crate::support::wire::Headers;

/// Header lines with what differs from run to run left out, in the order of their names.
fn shown(headers: &Headers, replace: &[(String, &str)]) -> String {
    let line = |(name, value): &(String, String)| {
        let value = match name.to_ascii_lowercase().as_str() {
            "date" => "DATE".to_owned(),
            "x-request-id" => "ID".to_owned(),
            // Texts with a path of this machine in them.
            "content-length" => "LENGTH".to_owned(),
            "set-cookie" => without_value(value),
            "cookie" => value.split('=').next().unwrap_or_default().to_owned() + "=ID",
            _ => value.clone(),
        };
        let value = replace.iter().fold(value, |value, (from, to)| value.replace(from, to));
        format!("    {name}: {value}\n")
    };
    let mut lines: Vec<_> = headers.0.iter().map(line).collect();
    lines.sort();
    lines.concat()
}

/// A `Set-Cookie` with the kind of its value only.
fn without_value(cookie: &str) -> String {
    let (name, rest) = cookie.split_once('=').unwrap();
    let (value, attributes) = rest.split_once(';').unwrap();
    let value = if value.is_empty() { String::new() } else { format!("{} CHARACTERS", value.len()) };
    format!("{name}={value};{attributes}")
}

fn request(page: &mut String, what: &str, request: &Request, replace: &[(String, &str)]) {
    let body = String::from_utf8(request.body.clone()).unwrap();
    let body = replace.iter().fold(body, |body, (from, to)| body.replace(from, to));
    let _ = writeln!(page, "{what}\n  {} {} {}", request.method, request.target, request.version);
    page.push_str(&shown(&request.headers, replace));
    if !body.is_empty() {
        let _ = writeln!(page, "    {body}");
    }
}

fn response(page: &mut String, what: &str, response: &Response, replace: &[(String, &str)]) {
    let _ = writeln!(page, "{what}\n  {}", response.status);
    page.push_str(&shown(&response.headers, replace));
    if let Ok(Value::Object(mut document)) = serde_json::from_slice(&response.body) {
        document.entry("request_id").and_modify(|id| *id = "ID".into());
        let _ = writeln!(page, "    {}", Value::Object(document));
    }
    if !response.trailers.0.is_empty() {
        let _ = writeln!(page, "  trailers\n{}", shown(&response.trailers, replace).trim_end());
    }
}

async fn application() -> Upstream {
    Upstream::start(|request| match request.target.as_str() {
        "/login" => {
            Reply::with_headers(200, &[("Vestibule-Session", "set; user_id=\"42\"; name=\"Ada\"")], "")
        }
        "/logout" => Reply::with_headers(200, &[("Vestibule-Session", "end")], ""),
        "/trailers" => Reply::chunked(200, &[("Trailer", "X-Sum")]).chunk("a").end_with_trailers(&[
            ("X-Sum", "1"),
            ("X-User-Id", "7"),
            ("Set-Cookie", "a=1"),
        ]),
        "/ws" => Reply::early().head(101, &[("Connection", "upgrade"), ("Upgrade", "websocket")]).close(),
        _ => Reply::text(200, ""),
    })
    .await
}

/// Everything that can be added, to a client that logs in, comes back and logs out.
async fn requests() -> String {
    let upstream = application().await;
    let config = Config::to(&[upstream.address()])
        .upstream("session_control = true")
        .route("[route.headers]\nX-Route = \"{client}\"")
        .with("[forwarding]\nforwarded = true\n[session.cookie]\nsecure = \"always\"");
    let proxy = Vestibule::start(config).await;
    let (to, from) = (upstream.address().to_string(), proxy.address());
    let replace = [(to, "INSTANCE"), (from.to_string(), "PROXY"), (from.port().to_string(), "PORT")];
    let mut page = String::new();
    let login = proxy.get("/login", &[]).await;
    response(&mut page, "RESPONSE to a login", &login, &replace);
    let cookie = login.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let claims = [
        ("Cookie", cookie.as_str()),
        ("X-User-Id", "7"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("TE", "trailers"),
    ];
    let trailers = proxy.get("/trailers", &claims).await;
    request(&mut page, "REQUEST with a session", upstream.requests().last().unwrap(), &replace);
    response(&mut page, "RESPONSE with trailers", &trailers, &replace);
    let mut client = proxy.connect().await;
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    client.send_request("GET", "/ws", &upgrade, b"").await;
    let switched = client.start_response().await;
    request(&mut page, "REQUEST to upgrade", upstream.requests().last().unwrap(), &replace);
    response(&mut page, "RESPONSE to an upgrade", &switched, &replace);
    let logout = proxy.get("/logout", &[("Cookie", &cookie)]).await;
    response(&mut page, "RESPONSE to a logout", &logout, &replace);
    page
}

/// The cookies that keep what clients were given.
async fn cookies() -> String {
    let upstream = application().await;
    let tables = format!(
        "[route.canary]\nupstream = \"v2\"\npercent = \"100%\"\n\
         [[upstream]]\nname = \"v2\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [session]\nmode = {{ compare = {{ shared = 0, sticky = 100 }} }}\n\
         [affinity]\npath = \"/app\"\ndomain = \"example.com\"\nsame_site = \"none\"\nsecure = \"always\"\n\
         partitioned = true\nmax_age = \"1h\"",
        upstream.address()
    );
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).with(&tables)).await;
    let mut page = String::new();
    response(&mut page, "RESPONSE with all cookies", &proxy.get("/", &[]).await, &[]);
    page
}

/// Responses that come from no instance.
async fn own() -> String {
    let (upstream, refused) = (application().await, RefusedPort::new());
    let routes = format!(
        "[[upstream]]\nname = \"dead\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [[route]]\npath = \"/dead\"\nupstream = \"dead\"\n\
         [[route]]\npath = \"/private\"\nupstream = \"app\"\non_absent = \"unauthorized\"\n\
         [[route]]\npath = \"/page\"\nupstream = \"app\"\non_absent = {{ redirect = \"/signin\" }}\n\
         [limits]\nuri_bytes = \"100B\"",
        refused.address()
    );
    let proxy = Vestibule::start(Config::to(&[upstream.address()]).route("host = \"h\"").with(&routes)).await;
    let long = format!("/{}", "a".repeat(200));
    let mut page = String::new();
    for (what, target) in [
        ("no route", "/"),
        ("no instance", "/dead"),
        ("no session", "/private"),
        ("no session, to a page", "/page"),
        ("a long target", long.as_str()),
    ] {
        let answer = proxy.get(target, &[("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")]).await;
        response(&mut page, &format!("RESPONSE of our own: {what}"), &answer, &[]);
    }
    for (what, head) in [
        ("a method", "TRACE / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("not readable", "GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
        ("HTTP/1.0", "GET /private HTTP/1.0\r\nHost: x\r\n\r\n"),
    ] {
        let mut client = proxy.connect().await;
        client.send(head).await;
        response(&mut page, &format!("RESPONSE of our own: {what}"), &client.response().await, &[]);
    }
    page
}

/// Requests of our own: checks of health, and calls of the command line.
async fn calls() -> String {
    let upstream = Upstream::answering(Reply::text(200, "{}")).await;
    let address = upstream.address();
    let replace = [
        (address.to_string(), "ADDRESS"),
        (format!("vestibule/{}", env!("CARGO_PKG_VERSION")), "vestibule/VERSION"),
    ];
    let mut page = String::new();
    let proxy = Vestibule::start(Config::to(&[address]).upstream("[upstream.health]")).await;
    upstream.wait_until("a check", |seen| !seen.requests.is_empty()).await;
    request(&mut page, "CHECK of an instance", &upstream.requests()[0], &replace);
    proxy.stop().await;
    for arguments in [
        &["reload"][..],
        &["upgrade"],
        &["sessions", "revoke", "abc"],
        &["sessions", "revoke", "--user", "42"],
        &["canaries", "list"],
        &["canaries", "set", "/", "12.5"],
        &["canaries", "promote", "/"],
        &["canaries", "rollback", "/"],
        &["upstreams", "list"],
        &["upstreams", "drain", "127.0.0.1:1", "--upstream", "app", "--deadline", "2h", "--then", "close"],
        &["upstreams", "weight", "127.0.0.1:1", "5"],
    ] {
        let upstream = Upstream::answering(Reply::text(200, "{}")).await;
        let mut call = command();
        call.args(arguments).args(["--admin", &upstream.address().to_string()]);
        call.env("VESTIBULE_ADMIN_TOKEN", "operator-token-0123456789");
        let output = tokio::task::spawn_blocking(move || call.output().unwrap()).await.unwrap();
        let what = format!("CALL of vestibule {}", arguments.join(" "));
        let replace = [(upstream.address().to_string(), "ADDRESS"), replace[1].clone()];
        match upstream.requests().first() {
            Some(first) => request(&mut page, &what, first, &replace),
            None => panic!("{what}: {output:?}"),
        }
    }
    page
}

#[tokio::test]
async fn golden_messages_keep_their_headers() {
    let page = [requests().await, cookies().await, own().await, calls().await];
    assert_golden("headers.txt", &page.concat());
}
