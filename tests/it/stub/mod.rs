//! The Dify-style instance keeps the promises that comparisons rest on.

mod login;
mod server;
mod streams;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, COOKIE, HeaderMap, SET_COOKIE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vestibule::lab::stub::{Handle, Options, Sessions, Stub};
use vestibule::secret::Secret;

const DEADLINE: Duration = Duration::from_secs(10);
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

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing within the deadline")
}

/// Sends one request on a connection of its own, which lives as long as the answer's body.
async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(path).header("host", "stub");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body)).unwrap();
    let stream = within(TcpStream::connect(address)).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    within(sender.send_request(request)).await.unwrap()
}

async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response<Incoming> {
    send(address, "GET", path, headers, Bytes::new()).await
}

async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &Value) -> Response<Incoming> {
    let headers = [&[("content-type", "application/json")], headers].concat();
    send(address, "POST", path, &headers, body.to_string().into()).await
}

async fn text(response: Response<Incoming>) -> String {
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn json_of(response: Response<Incoming>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

fn unauthorized(message: &str) -> Value {
    json!({"code": "unauthorized", "message": message, "status": 401})
}

fn ask(mode: &str, inputs: Value) -> Value {
    json!({"inputs": inputs, "query": "hello", "response_mode": mode, "user": "u-1", "conversation_id": "", "files": []})
}

/// Reads a stream up to the first frame that is no ping.
async fn first_event(response: &mut Response<Incoming>) -> Value {
    let mut read = Vec::new();
    loop {
        let frame = within(response.body_mut().frame()).await.unwrap().unwrap();
        read.extend(frame.into_data().unwrap());
        let read = str::from_utf8(&read).unwrap();
        let event =
            read.split_inclusive("\n\n").find_map(|frame| frame.strip_prefix("data: ")?.strip_suffix("\n\n"));
        if let Some(event) = event {
            return serde_json::from_str(event).unwrap();
        }
    }
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
