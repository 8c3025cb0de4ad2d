//! Dify-style instances as processes of their own, and a browser for them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::client::{self, Client, Response};
use super::process::Process;
use super::vestibule::command;

/// A running `vestibule stub`.
pub(crate) struct Stub {
    process: Process,
    pub(crate) address: SocketAddr,
    stats: SocketAddr,
    options: Vec<String>,
}

impl Stub {
    pub(crate) async fn start(options: &[&str]) -> Self {
        let options = options.iter().map(|option| option.to_string()).collect();
        Self::listening("127.0.0.1:0".parse().unwrap(), options).await
    }

    async fn listening(address: SocketAddr, options: Vec<String>) -> Self {
        let mut command = command();
        command.args(["--log-format", "json", "stub", "--stats-listen", "127.0.0.1:0"]);
        command.args(["--listen", &address.to_string()]).args(&options);
        let process = Process::start(&mut command);
        let told = async |message: &str| {
            let line = process.wait_for_line(message, |line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["message"] == message).then(|| line["address"].as_str()?.parse().ok())?
            });
            line.await
        };
        let (address, stats) = (told("instance listening").await, told("stats listening").await);
        Self { process, address, stats, options }
    }

    /// Asks it to stop, waits until it has, and starts it again at the same address.
    pub(crate) async fn restart(&mut self) {
        self.process.signal("TERM");
        assert_eq!(self.process.exit().await.code(), Some(0));
        let options = std::mem::take(&mut self.options);
        *self = Self::listening(self.address, options).await;
    }

    /// What it counted since it was started.
    pub(crate) async fn stats(&self) -> Value {
        client::get(self.stats, "/__stub/stats").await.json()
    }
}

/// A browser that keeps cookies, on one connection.
pub(crate) struct Browser {
    client: Client,
    cookies: Vec<(String, String)>,
}

impl Browser {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self { client: Client::connect(address).await, cookies: Vec::new() }
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// One request as far as the head of its answer; cookies are sent and kept.
    pub(crate) async fn begin(&mut self, method: &str, target: &str, body: Option<&Value>) -> Response {
        let pairs: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let (cookies, csrf) = (pairs.join("; "), self.cookie("csrf_token").unwrap_or_default().to_owned());
        let headers = [
            ("Cookie", cookies.as_str()),
            ("X-Csrf-Token", &csrf),
            ("Authorization", "Bearer app-chat-key"),
            ("Content-Type", "application/json"),
        ];
        let body = body.map(Value::to_string).unwrap_or_default();
        // The stub prefers the cookie to the bearer token.
        self.client.send_request(method, target, &headers, body.as_bytes()).await;
        let response = self.client.start_response().await;
        for line in response.headers.all("set-cookie") {
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(own, _)| own != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        response
    }

    /// The rest of an answer; an error when it is cut.
    pub(crate) async fn finish(&mut self, response: &mut Response) -> std::io::Result<()> {
        self.client.finish(response).await
    }

    /// One request with its whole answer.
    pub(crate) async fn ask(&mut self, method: &str, target: &str, body: Option<&Value>) -> Response {
        let mut response = self.begin(method, target, body).await;
        self.finish(&mut response).await.unwrap();
        response
    }

    /// Logs the user of this number in.
    pub(crate) async fn login(&mut self, number: usize) -> Response {
        use base64::Engine;
        let password = base64::prelude::BASE64_STANDARD.encode(format!("Passw0rd{number}"));
        let body = json!({ "email": format!("u{number}@example.com"), "password": password });
        self.ask("POST", "/console/api/login", Some(&body)).await
    }

    /// The profile of whoever is logged in.
    pub(crate) async fn profile(&mut self) -> Response {
        self.ask("GET", "/console/api/account/profile", None).await
    }

    /// Begins a chat that streams this many tokens per second.
    pub(crate) async fn chat(&mut self, tokens: u32, per_second: u32) -> Response {
        let inputs = json!({ "tokens": tokens, "tps": per_second, "ttft_ms": 0 });
        let body = json!({ "inputs": inputs, "query": "hello", "response_mode": "streaming", "user": "u" });
        self.begin("POST", "/v1/chat-messages", Some(&body)).await
    }
}

/// The name of the instance that answered.
pub(crate) fn instance_of(response: &Response) -> String {
    response.headers.get("x-stub-instance").unwrap_or_default().to_owned()
}
