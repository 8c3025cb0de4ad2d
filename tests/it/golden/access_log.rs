//! Fields of the access log, by what happened to the request.

use serde_json::Value;

use super::{assert_golden, shape::shape};
use crate::support::RefusedPort;
use crate::support::client::{Client, get_with};
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::Program;

async fn application() -> Upstream {
    Upstream::start(|request| match request.target.as_str() {
        "/login" => Reply::with_headers(200, &[("Vestibule-Session", "set; user_id=\"42\"")], ""),
        _ => Reply::text(200, ""),
    })
    .await
}

/// The fields of the line for which `is_it` holds.
async fn fields(program: &Program, what: &str, is_it: impl Fn(&Value) -> bool) -> String {
    let find = |line: &str| serde_json::from_str::<Value>(line).ok().filter(&is_it);
    let line = program.process.wait_for_line(what, find).await;
    format!("{what}\n{}", shape(&line, &[]))
}

/// Asks for `path`, and tells the fields of the line about it.
async fn asked(program: &Program, what: &str, path: &str, cookie: &str) -> String {
    get_with(program.address, path, &[("Cookie", cookie)]).await;
    fields(program, what, |line| line["path"] == path).await
}

async fn shared() -> String {
    let (application, refused) = (application().await, RefusedPort::new());
    let dead = format!(
        "[[upstream]]\nname = \"dead\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [[route]]\npath = \"/dead\"\nupstream = \"dead\"",
        refused.address()
    );
    let config = Config::to(&[application.address()]).upstream("session_control = true").with(&dead);
    let program = Program::start(config).await;
    let login = get_with(program.address, "/login", &[]).await;
    let cookie = login.headers.get("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let mut page = asked(&program, "with a session", "/with", &cookie).await;
    page += &asked(&program, "without a session", "/without", "a=1").await;
    page += &asked(&program, "no instance", "/dead", "a=1").await;
    let mut client = Client::connect(program.address).await;
    client.send("GET / HTTP/1.1\r\nHost : h\r\n\r\n").await;
    client.response().await;
    page += &fields(&program, "not readable", |line| line["reason"] == "malformed").await;
    let mut client = Client::connect(program.address).await;
    client.send("GET /nohost HTTP/1.1\r\n\r\n").await;
    client.response().await;
    page + &fields(&program, "refused", |line| line["path"] == "/nohost").await
}

async fn sticky() -> String {
    let application = application().await;
    let config = Config::to(&[application.address()]).with("[session]\nmode = \"sticky\"");
    asked(&Program::start(config).await, "sticky", "/sticky", "a=1").await
}

async fn compared() -> String {
    let application = application().await;
    let tables = format!(
        "[route.canary]\nupstream = \"v2\"\npercent = \"100%\"\n\
         [[upstream]]\nname = \"v2\"\n[[upstream.instance]]\naddress = \"{}\"\n\
         [session]\nmode = {{ compare = {{ shared = 100, sticky = 0 }} }}",
        application.address()
    );
    let config = Config::to(&[application.address()]).with(&tables);
    asked(&Program::start(config).await, "compared modes, with a canary", "/compared", "a=1").await
}

#[tokio::test]
async fn golden_lines_of_the_access_log_keep_their_fields() {
    let page = [shared().await, sticky().await, compared().await];
    assert_golden("access-log.txt", &page.concat());
}
