//! A minimal HTTP client for the proxy's admin listener and for instances.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Timeout of a whole call.
const DEADLINE: Duration = Duration::from_secs(5);
/// Maximum bytes of a response.
const MOST: usize = 16 << 20;

/// One request on its own connection. `token` is sent as a bearer token, `body` as JSON.
pub(super) async fn ask(
    address: SocketAddr,
    (method, path): (Method, &str),
    token: &str,
    body: String,
) -> io::Result<(StatusCode, Bytes)> {
    timeout(DEADLINE, exchange(address, (method, path), token, body))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(
    address: SocketAddr,
    (method, path): (Method, &str),
    token: &str,
    body: String,
) -> io::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address.to_string())
        .header(AUTHORIZATION, format!("Bearer {token}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST).collect().await.map_err(io::Error::other)?;
    connection.abort();
    Ok((status, body.to_bytes()))
}
