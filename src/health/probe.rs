//! A single health check: one new connection, and for HTTP one request on it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;

use crate::config::{CheckKind, HttpCheck, Limits};
use crate::transport::is_exhaustion;

/// Most bytes of a response body that are searched.
const BODY: usize = 64 * 1024;

/// Why a health check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no valid answer: {0}")]
    Answer(#[source] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[source] http::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer does not hold the expected text")]
    Body,
    #[error("no answer in time")]
    TimedOut,
}

impl ProbeError {
    /// Whether the cause is a lack of sockets or ports in the proxy, not the instance.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, ProbeError::Connect(error) if is_exhaustion(error))
    }

    /// Whether the connect was refused, so no process listens at the address.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, ProbeError::Connect(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// Makes one check. It has no timeout of its own; the caller sets one. Dropping the future closes the
/// connection.
pub(super) async fn probe(address: SocketAddr, kind: &CheckKind) -> Result<(), ProbeError> {
    let stream = TcpStream::connect(address).await.map_err(ProbeError::Connect)?;
    match kind {
        CheckKind::Tcp => Ok(()),
        CheckKind::Http(check) => ask(stream, address, check).await,
    }
}

async fn ask(stream: TcpStream, address: SocketAddr, check: &HttpCheck) -> Result<(), ProbeError> {
    // The size of a response head is not a criterion of health, so the parser limits are the largest that can
    // be configured for any response.
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(Limits::MAX_RESPONSE_HEADER_COUNT)
        .max_buf_size(Limits::MAX_RESPONSE_HEADER_BYTES)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ProbeError::Answer)?;
    let request = request(address, check).map_err(ProbeError::Request)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(ProbeError::Answer)?;
        judge(answer, check).await
    };
    tokio::select! {
        result = exchange => result,
        Err(error) = connection => Err(ProbeError::Answer(error)),
    }
}

fn request(address: SocketAddr, check: &HttpCheck) -> Result<Request<Empty<Bytes>>, http::Error> {
    let host = match &check.host {
        Some(host) => host.clone(),
        None => HeaderValue::try_from(address.to_string())?,
    };
    Request::builder()
        .method(&check.method)
        .uri(&check.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("vestibule/", env!("CARGO_PKG_VERSION"), " health check"))
        .header(header::CONNECTION, "close")
        .body(Empty::new())
}

async fn judge(answer: Response<Incoming>, check: &HttpCheck) -> Result<(), ProbeError> {
    if !check.status.contains(answer.status()) {
        return Err(ProbeError::Status(answer.status()));
    }
    let Some(sought) = &check.body else { return Ok(()) };
    let (mut body, mut read) = (answer.into_body(), Vec::new());
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(ProbeError::Answer)?.data_ref() {
            read.extend_from_slice(data.get(..BODY - read.len()).unwrap_or(data));
        }
        if memmem::find(&read, sought.as_bytes()).is_some() {
            return Ok(());
        }
        if read.len() >= BODY {
            break;
        }
    }
    Err(ProbeError::Body)
}
