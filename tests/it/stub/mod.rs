//! The Dify-style instance keeps the promises that comparisons rest on.

mod login;
mod server;
mod streams;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vestibule::lab::stub::{Handle, Options, Sessions, Stub};
use vestibule::secret::Secret;

use crate::support::client::{Client, Response};
use crate::support::within;

const APP_KEY: (&str, &str) = ("authorization", "Bearer app-chat-key");

struct Running {
    address: SocketAddr,
    stats: SocketAddr,
    handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(options: Options) -> Running {
    let stats_listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let stub = Stub::bind(Options { stats_listen, ..options }).await.unwrap();
    let (address, stats, handle) = (stub.local_addr(), stub.stats_addr().unwrap(), stub.handle());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(stub.run(async {
        let _ = stopped.await;
    }));
    Running { address, stats, handle, stop, task }
}

async fn start_default() -> Running {
    start(Options::default()).await
}

/// Sends one request on a connection of its own and reads the whole answer.
async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    Client::connect(address).await.request(method, path, headers, body).await
}

async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    send(address, "GET", path, headers, b"").await
}

async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
    let headers = [&[("content-type", "application/json")], headers].concat();
    send(address, "POST", path, &headers, body.to_string().as_bytes()).await
}

fn unauthorized(message: &str) -> Value {
    json!({"code": "unauthorized", "message": message, "status": 401})
}

fn ask(mode: &str, inputs: Value) -> Value {
    json!({"inputs": inputs, "query": "hello", "response_mode": mode, "user": "u-1", "conversation_id": "", "files": []})
}

/// A stream under way: the connection, and the answer as far as it was read.
struct Streaming {
    client: Client,
    response: Response,
}

impl Streaming {
    /// Asks for a stream and reads up to the first frame that is no ping, which it returns as well.
    async fn open(address: SocketAddr, path: &str, inputs: Value) -> (Self, Value) {
        Self::open_as(address, path, &[APP_KEY], inputs).await
    }

    /// The same with other headers than an app key.
    async fn open_as(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
        inputs: Value,
    ) -> (Self, Value) {
        let mut client = Client::connect(address).await;
        let headers = [headers, &[("content-type", "application/json")]].concat();
        let body = ask("streaming", inputs).to_string();
        client.send_request("POST", path, &headers, body.as_bytes()).await;
        let mut response = client.start_response().await;
        loop {
            let piece = client.next_piece(&mut response).await.unwrap().expect("the stream ends too early");
            response.body.extend(piece);
            let frames = response.text().split_inclusive("\n\n");
            let event = frames.filter_map(|frame| frame.strip_prefix("data: ")?.strip_suffix("\n\n")).next();
            if let Some(event) = event.map(|event| serde_json::from_str(event).unwrap()) {
                return (Streaming { client, response }, event);
            }
        }
    }

    /// The whole stream; an error when it is cut.
    async fn finish(mut self) -> io::Result<String> {
        self.client.finish(&mut self.response).await?;
        Ok(self.response.text().to_owned())
    }
}

/// More than any test waits for.
fn endless() -> Value {
    json!({"tokens": 1000, "tps": 1, "ttft_ms": 0})
}

/// The frames of a whole stream: a ping as `None`.
fn frames(stream: &str) -> Vec<Option<Value>> {
    let stream = stream.strip_suffix("\n\n").expect("the last frame ends with an empty line");
    stream
        .split("\n\n")
        .map(|frame| match frame.strip_prefix("data: ") {
            Some(json) => Some(serde_json::from_str(json).unwrap()),
            None => {
                assert_eq!(frame, "event: ping");
                None
            }
        })
        .collect()
}

fn names(frames: &[Option<Value>]) -> Vec<&str> {
    frames
        .iter()
        .map(|frame| frame.as_ref().map_or("ping", |frame| frame["event"].as_str().unwrap()))
        .collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}
