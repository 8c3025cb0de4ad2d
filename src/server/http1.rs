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

/// How long a closing connection is read from: an upload that was refused may take a slow client that long to give up.
const LINGER: Duration = Duration::from_secs(30);
/// The same once the process is to end.
const LINGER_DRAINING: Duration = Duration::from_secs(2);
/// The longest pause within.
const LINGER_PAUSE: Duration = Duration::from_millis(500);

/// hyper's only sign that it answered 414 rather than 431.
const URI_TOO_LONG: &str = "URI too long";
/// hyper's default, which needs no allocation.
const HYPER_HEADER_COUNT: usize = 100;

/// How a stretch of being served ended.
pub(super) enum ConnectionOutcome {
    /// The connection is over.
    Closed,
    /// Nothing is under way and nothing half read.
    Idle(TcpStream),
    /// An answer agreed on another protocol.
    Upgraded { stream: TcpStream, ahead: Bytes, upgrade: Upgrade },
}

/// Serves requests until the connection ends, is upgraded or falls idle. It begins with (some of) a
/// request to be read, which must be whole within `request_head`.
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
                    // An earlier response is half written, and this one comes right behind it.
                    drop(client.take_interim());
                }
                match answer.extensions_mut().remove::<Upgrade>() {
                    Some(upgrade) => activity.set_upgrade(upgrade),
                    // Closing an idle connection could cross with its next request, which would be lost. So each
                    // client has one more answer from a process that retires, and is told with it.
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
                // Part of a head is there; its time began with its first byte, at most two ticks ago.
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

fn builder(server: &Server) -> Builder {
    let (mut builder, limits) = (Builder::new(), server.service.limits());
    builder.half_close(false).max_header_size(limits.header_bytes);
    // A whole head must fit into the buffer.
    builder.max_buf_size(limits.header_bytes.max(BUFFER));
    if limits.header_count != HYPER_HEADER_COUNT {
        builder.max_headers(limits.header_count);
    }
    builder
}

/// A trailer section as it is written.
fn section(frame: Frame<Bytes>) -> Vec<u8> {
    let mut section = Vec::new();
    for (name, value) in &frame.into_trailers().unwrap_or_default() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            section.extend_from_slice(part);
        }
    }
    section
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() { first } else { [first, second].concat().into() }
}

/// Closes a connection whose last answer is written or broken off. What the client is still sending is read
/// for a while: closing at once would make the system reset the connection and take the answer away from it.
async fn close(server: &Server, mut stream: TcpStream) -> ConnectionOutcome {
    // Whether the client still hears it makes no difference to us.
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
    // Both ends are as good: the client has had its chance.
    tokio::select! {
        () = linger => {}
        () = over => {}
    }
    ConnectionOutcome::Closed
}

async fn refuse(server: &Server, mut stream: TcpStream, status: StatusCode) -> ConnectionOutcome {
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    // Whether the client still hears it makes no difference to us.
    let _ = timeout(LINGER_PAUSE, stream.write_all(answer.as_bytes())).await;
    close(server, stream).await
}

/// Ends a connection in the middle of an answer. HTTP/1.1 shows the client that something is missing; in
/// HTTP/1.0 the end of the connection may be the end of the answer, so it must not be an orderly one.
fn cut(stream: &TcpStream, activity: &ConnectionActivity) -> ConnectionOutcome {
    if activity.is_http10() {
        // Without it the cut only looks less like one.
        let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    ConnectionOutcome::Closed
}

/// A request that hyper could not read was answered by hyper; it still counts and is logged as one. Whether
/// this was such a case.
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

/// The body of an answer; its request counts as running until it is dropped.
///
/// When it breaks off, what came before it is sent first: hyper forgets what it has not written when a body fails.
pub(super) struct InFlightBody {
    body: ResponseBody,
    running: InFlight,
    broken: Option<UpstreamBodyError>,
    /// Whether the trailer section is written by [`Http1Io`], whatever the head said of it: hyper would leave out what
    /// was not announced (RFC 9110 section 6.5).
    trailers: bool,
}

impl InFlightBody {
    /// As long as the socket is full, hyper asks again when it is not, and the keeper knows how long that may take.
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
                // A turn for what is to be written.
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
