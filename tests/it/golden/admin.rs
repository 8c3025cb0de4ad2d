//! Every address of the admin listener.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{assert_golden, shape::shape};
use crate::support::client::{Client, Response};
use crate::support::config::Config;
use crate::support::upstream::{Reply, Upstream};
use crate::support::vestibule::{Program, Successor};

const TOKEN: &str = "operator-token-0123456789";
/// What is counted by status, or by source.
const OPEN: [&str; 6] = [
    "before.statuses",
    "during.statuses",
    "after.statuses",
    "before.sessions",
    "during.sessions",
    "after.sessions",
];

struct Operator<'a> {
    program: &'a Program,
    page: String,
}

impl Operator<'_> {
    /// Asks, and writes down what comes back, with texts as they are and JSON by its shape.
    async fn ask(&mut self, method: &str, target: &str, document: Option<Value>) -> Response {
        let token = format!("Bearer {TOKEN}");
        let mut headers = vec![("Authorization", token.as_str())];
        headers.extend(document.as_ref().map(|_| ("Content-Type", "application/json")));
        let body = document.as_ref().map(Value::to_string).unwrap_or_default();
        let mut client = Client::connect(self.program.admin).await;
        let response = client.request(method, target, &headers, body.as_bytes()).await;
        let document =
            document.map(|document| format!(" {}", shape(&document, &[]).trim())).unwrap_or_default();
        let document = document.replace("\n    ", ", ");
        let _ = writeln!(self.page, "{method} {target}{document}\n  {}", response.status);
        let mut names: Vec<_> = response.headers.0.iter().collect();
        names.sort();
        for (name, value) in names {
            let varies = ["date", "content-length"].contains(&name.to_ascii_lowercase().as_str());
            let _ = writeln!(self.page, "  {name}: {}", if varies { "*" } else { value });
        }
        let kind = response.headers.get("content-type").unwrap_or_default();
        match kind {
            _ if kind.contains("json") => self.page.push_str(&shape(&response.json(), &OPEN)),
            _ if kind.starts_with("text/") => {
                response.text().lines().for_each(|line| self.page.push_str(&format!("    {line}\n")));
            }
            _ => {}
        }
        response
    }

    async fn drill(&mut self, address: &str) {
        let target = "/api/v1/drills";
        self.ask("POST", target, Some(json!({ "action": "measure", "instance": address }))).await;
        let begin =
            json!({ "action": "begin", "instance": address, "upstream": "app", "open": "cut", "for": "5m" });
        let begun = self.ask("POST", target, Some(begin)).await;
        let id = begun.json()["id"].clone();
        for action in ["continue", "end"] {
            self.ask("POST", target, Some(json!({ "action": action, "drill": id }))).await;
        }
    }
}

async fn all(program: &Program, address: &str) -> String {
    let mut operator = Operator { program, page: String::new() };
    for target in ["/livez", "/readyz", "/readyz?verbose", "/metrics", "/nothing", "/api/v1/nothing"] {
        operator.ask("GET", target, None).await;
    }
    operator.ask("DELETE", "/livez", None).await;
    operator.ask("DELETE", "/api/v1/upstreams", None).await;
    operator.ask("GET", "/api/v1/upstreams", None).await;
    let drain = json!({
        "instance": address, "upstream": "app", "state": "drain", "weight": 2, "deadline": "2h", "then": "close"
    });
    operator.ask("POST", "/api/v1/upstreams", Some(drain)).await;
    operator.ask("POST", "/api/v1/upstreams", Some(json!({ "instance": address, "state": "ready" }))).await;
    operator.ask("GET", "/api/v1/canaries", None).await;
    operator.ask("POST", "/api/v1/canaries", Some(json!({ "route": "/", "percent": 12.5 }))).await;
    operator.ask("POST", "/api/v1/canaries", Some(json!({ "route": "/", "action": "rollback" }))).await;
    operator.ask("POST", "/api/v1/sessions/revoke", Some(json!({ "id": "abc" }))).await;
    operator.ask("POST", "/api/v1/sessions/revoke", Some(json!({ "user": "42" }))).await;
    operator.drill(address).await;
    operator.ask("POST", "/api/v1/reload", None).await;
    let config = program.config_path().to_str().unwrap();
    operator.ask("POST", "/api/v1/reload", Some(json!({ "config": config }))).await;
    let upgraded = operator.ask("POST", "/api/v1/upgrade", None).await;
    drop(Successor(u32::try_from(upgraded.json()["process"].as_u64().unwrap()).unwrap()));
    operator.page
}

#[tokio::test]
async fn golden_the_admin_listener_keeps_its_addresses_and_fields() {
    let instance = Upstream::answering(Reply::text(200, "")).await;
    let address = instance.address().to_string();
    let tables = "[route.canary]\nupstream = \"v2\"\npercent = \"5%\"\n\
                  [[upstream]]\nname = \"v2\"\n[[upstream.instance]]\naddress = \"127.0.0.1:1\"\n\
                  [session]\nmode = { compare = { shared = 50, sticky = 50 } }";
    let config = Config::to(&[instance.address()]).token(TOKEN).with(tables);
    let program = Program::start(config).await;
    assert_golden("admin.txt", &all(&program, &address).await);
}
