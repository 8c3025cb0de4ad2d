//! A headless Chromium, steered by its own protocol.

use std::process::Command;

use base64::Engine;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::process::Process;
use super::within;

/// One tab of a browser that ends with it.
pub(crate) struct Tab {
    socket: WebSocketStream<TcpStream>,
    next: u64,
    session: String,
    /// What was said to the console, thrown, or refused, since the tab was opened.
    pub(crate) complaints: Vec<String>,
    _process: Process,
    _profile: tempfile::TempDir,
}

impl Tab {
    pub(crate) async fn open() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        // Without a sandbox, as tests run in containers that have none; only our own pages are opened.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]);
        command.args(["--disable-dev-shm-usage", "--remote-debugging-port=0", "about:blank"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let process = Process::start(&mut command);
        let url = |line: &str| line.strip_prefix("DevTools listening on ").map(str::to_owned);
        let url = process.wait_for_line("chromium", url).await;
        let address = url.strip_prefix("ws://").unwrap().split('/').next().unwrap().to_owned();
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = within("handshake", client_async(url, stream)).await.unwrap();
        let (session, complaints) = (String::new(), Vec::new());
        let mut tab = Self { socket, next: 0, session, complaints, _process: process, _profile: profile };
        let target =
            tab.call("Target.createTarget", json!({ "url": "about:blank" })).await["targetId"].clone();
        let attached =
            tab.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true })).await;
        tab.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            tab.call(&format!("{domain}.enable"), json!({})).await;
        }
        tab
    }

    /// Calls a method of the protocol and gives its result.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.socket.send(Message::text(message.to_string())).await.unwrap();
        loop {
            let reply = self.receive(method).await;
            if reply["id"] == self.next {
                assert!(reply["error"].is_null(), "{method}: {}", reply["error"]);
                return reply["result"].clone();
            }
        }
    }

    async fn receive(&mut self, what: &str) -> Value {
        let message = within(what, self.socket.next()).await.unwrap().unwrap();
        let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        let complains = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        if complains.iter().any(|event| message["method"] == *event) {
            self.complaints.push(message["params"].to_string());
        }
        let asked = message["params"]["request"]["url"].as_str().unwrap_or_default();
        if message["method"] == "Network.requestWillBeSent" && asked.starts_with("http") {
            self.complaints.push(format!("asked for {asked}"));
        }
        message
    }

    /// Opens a page at this width, in this colour scheme, and waits until it is there.
    pub(crate) async fn show(&mut self, url: &str, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features).await;
        self.call("Page.navigate", json!({ "url": url })).await;
        while self.evaluate("document.readyState").await != "complete" {
            tokio::task::yield_now().await;
        }
    }

    /// What an expression comes to in the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", asked).await["result"]["value"].clone()
    }

    /// The whole page as PNG.
    pub(crate) async fn picture(&mut self) -> Vec<u8> {
        let asked = json!({ "format": "png", "captureBeyondViewport": true });
        let data = self.call("Page.captureScreenshot", asked).await["data"].clone();
        base64::prelude::BASE64_STANDARD.decode(data.as_str().unwrap()).unwrap()
    }
}
