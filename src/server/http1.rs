//! HTTP/1.1 on one client connection.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::Server;
use super::http1_io::Http1Io;
use super::io::{ClientIo, ConnectionActivity, InFlight};
use super::reader::Violation;
use super::request_framing::RequestFraming;
use super::timer::{ConnectionTimer, End};
use crate::proxy::{Client, ResponseBody, Service, Upgrade};
use crate::socket::{BUFFER, Socket};
use crate::transport::UpstreamBodyError;

/// Maximum time for which a closing connection is still read. A slow client may need that long to stop an
/// upload that was rejected.
const LINGER: Duration = Duration::from_secs(30);
/// The same limit once the drain has begun.
const LINGER_DRAINING: Duration = Duration::from_secs(2);
/// Maximum pause between two reads while lingering.
const LINGER_PAUSE: Duration = Duration::from_millis(500);

/// hyper's error text for 414. It is the only way to tell 414 from 431.
const URI_TOO_LONG: &str = "URI too long";
/// hyper's default header limit. hyper needs no allocation for it.
const HYPER_HEADER_COUNT: usize = 100;

/// Result of serving a connection.
pub(super) enum ConnectionOutcome {
    /// The connection is closed.
    Closed,
    /// No request is in flight and no bytes of a request are buffered.
    Idle(TcpStream),
    /// A response switched protocols.
    Upgraded { stream: TcpStream, ahead: Bytes, upgrade: Upgrade },
}

/// Serves requests until the connection ends, is upgraded or becomes idle. The first request is expected at
/// once: its head must be complete within `request_head`.
pub(super) async fn serve(server: &Server, mut io: ClientIo, client: Arc<Client>) -> ConnectionOutcome {
    let activity = io.activity.clone();
    let mut keeper = ConnectionTimer::new(server, activity.clone());
    loop {
        let requests = service_fn(|request: Request<Incoming>| {
            let running = activity.begin(request.version());
            let asked = RequestFraming::of(&request);
            activity.put_follows(asked.follows);
            let (activity, client) = (&activity, &client);
            server.service.handle(request, client.clone(), None).map(move |mut answer| {
                if !activity.is_drained() {
                    // An earlier response is only partly written, and this response follows directly. Pending
                    // interim responses can no longer be sent before it, so they are dropped.
                    drop(client.take_interim());
                }
                match answer.extensions_mut().remove::<Upgrade>() {
                    Some(upgrade) => activity.set_upgrade(upgrade),
                    // Closing an idle connection can race with the client's next request, which would be
                    // lost. A retiring process therefore serves one more response on each connection and
                    // announces the close with it.
                    None => asked.announce_end(&mut answer, server.drain.is_retired()),
                }
                let trailers = asked.wants_trailers;
                Ok::<_, Infallible>(answer.map(|body| InFlightBody { body, running, broken: None, trailers }))
            })
        });
        let half_closed = server.service.timeouts().half_closed;
        let client_io = Http1Io::new(io, client.clone(), half_closed);
        let mut connection = builder(server).serve_connection(client_io, requests);
        let end = keeper.run(&mut connection).await;
        let parts = connection.into_parts();
        let (ahead, violation) = (parts.read_buf, parts.io.violation());
        let ClientIo { socket, ahead: unread, .. } = parts.io.io;
        let stream = socket.into_inner();
        if violation == Some(Violation::Method) {
            server.service.refused(&client, StatusCode::NOT_IMPLEMENTED, "method");
            return refuse(server, stream, StatusCode::NOT_IMPLEMENTED).await;
        }
        match end {
            End::Failed(error) => {
                let unreadable = report(&server.service, &client, &error);
                return if unreadable { close(server, stream).await } else { cut(&stream, &activity) };
            }
            End::Finished => {
                return match activity.take_upgrade() {
                    Some(upgrade) => {
                        ConnectionOutcome::Upgraded { stream, ahead: joined(ahead, unread), upgrade }
                    }
                    None => close(server, stream).await,
                };
            }
            End::HeadTimedOut => {
                server.service.refused(&client, StatusCode::REQUEST_TIMEOUT, "request_head");
                return refuse(server, stream, StatusCode::REQUEST_TIMEOUT).await;
            }
            End::Stalled => return cut(&stream, &activity),
            End::Idle if ahead.is_empty() && unread.is_empty() => return ConnectionOutcome::Idle(stream),
            End::Idle => {
                // Part of a head is buffered. Its timeout restarts here, at most two ticks after its first
                // byte.
                io = ClientIo {
                    socket: Socket::new(stream),
                    ahead: joined(ahead, unread),
                    activity: activity.clone(),
                };
                keeper.expect_head(Instant::now());
            }
        }
    }
}

/// The hyper builder with the limits of the current configuration.
fn builder(server: &Server) -> Builder {
    let (mut builder, limits) = (Builder::new(), server.service.limits());
    builder.half_close(false).max_header_size(limits.header_bytes);
    // hyper needs a whole head to fit into the buffer.
    builder.max_buf_size(limits.header_bytes.max(BUFFER));
    if limits.header_count != HYPER_HEADER_COUNT {
        builder.max_headers(limits.header_count);
    }
    builder
}

/// Serializes a trailer section.
fn section(frame: Frame<Bytes>) -> Vec<u8> {
    let mut section = Vec::new();
    for (name, value) in &frame.into_trailers().unwrap_or_default() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            section.extend_from_slice(part);
        }
    }
    section
}

/// Concatenates unread bytes in order.
fn joined(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() { first } else { [first, second].concat().into() }
}

/// Closes a connection after its last response was written or aborted. Incoming bytes are read and discarded
/// for a while: if the socket were closed with unread data, the kernel would reset the connection and the
/// client could lose the response.
async fn close(server: &Server, mut stream: TcpStream) -> ConnectionOutcome {
    // Errors do not matter: the connection is closed anyway.
    let _ = stream.shutdown().await;
    let linger = async {
        let mut waste = vec![0; 16 * 1024];
        while let Ok(Ok(1..)) = timeout(LINGER_PAUSE, stream.read(&mut waste)).await {}
    };
    let over = async {
        if timeout(LINGER, server.drain.begun()).await.is_ok() {
            sleep(LINGER_DRAINING).await;
        }
    };
    // Both branches end the same way.
    tokio::select! {
        () = linger => {}
        () = over => {}
    }
    ConnectionOutcome::Closed
}

/// Writes an error response without a body, outside hyper, and closes the connection.
async fn refuse(server: &Server, mut stream: TcpStream, status: StatusCode) -> ConnectionOutcome {
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    // Errors do not matter: the connection is closed anyway.
    let _ = timeout(LINGER_PAUSE, stream.write_all(answer.as_bytes())).await;
    close(server, stream).await
}

/// Aborts a connection in the middle of a response. In HTTP/1.1 the framing shows the client that the
/// response is incomplete. In HTTP/1.0 a normal close may mark the end of the body, so the connection is
/// reset.
fn cut(stream: &TcpStream, activity: &ConnectionActivity) -> ConnectionOutcome {
    if activity.is_http10() {
        // If this fails, the close is orderly instead of a reset; nothing else can be done.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    ConnectionOutcome::Closed
}

/// Logs and counts a request that hyper rejected as unparsable; hyper has written the error response. Returns
/// whether `error` is such a parse error.
fn report(service: &Service, client: &Client, error: &hyper::Error) -> bool {
    if error.is_parse_too_large() && error.to_string() == URI_TOO_LONG {
        service.refused(client, StatusCode::URI_TOO_LONG, "uri_limit");
    } else if error.is_parse_too_large() {
        service.refused(client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "header_limit");
    } else if error.is_parse() {
        service.refused(client, StatusCode::BAD_REQUEST, "malformed");
    }
    error.is_parse()
}

/// Body of a response. Its request counts as in flight until the body is dropped.
///
/// When the upstream body fails, the preceding data is written before the error is passed on: hyper discards
/// unwritten data when a body fails.
pub(super) struct InFlightBody {
    body: ResponseBody,
    running: InFlight,
    broken: Option<UpstreamBodyError>,
    /// Whether [`Http1Io`] writes the trailer section, whatever the head declares. hyper omits trailers that
    /// were not announced in `Trailer` (RFC 9110 section 6.5).
    trailers: bool,
}

impl InFlightBody {
    /// Returns the stored error once the socket is not blocked. While it is blocked, hyper polls again when
    /// it becomes writable, and the connection timer limits the wait.
    fn poll_broken(&mut self) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        match self.broken.take_if(|_| !self.running.is_write_blocked()) {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => Poll::Pending,
        }
    }
}

impl Body for InFlightBody {
    type Data = Bytes;
    type Error = UpstreamBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.broken.is_some() {
            return this.poll_broken();
        }
        match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            Some(Err(error)) => {
                this.broken = Some(error);
                // Yields once, so that hyper can write its buffered data.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Ok(frame)) if this.trailers && frame.is_trailers() => {
                this.running.put_trailers(section(frame));
                Poll::Ready(None)
            }
            next => Poll::Ready(next),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
