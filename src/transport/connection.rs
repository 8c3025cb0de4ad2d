//! One HTTP/1.1 connection to an instance.
//!
//! A connection has no task of its own: the task that waits for the response drives it. A request therefore
//! needs no wake-up of another task. hyper's channels between the two halves need no wakers, because they
//! become ready only while the driver is polled; hence the contexts with a no-op waker. Dropping the response
//! closes the connection at once. Only if a response begins before its request has been sent completely, a
//! separate task drives the connection, because the rest of the request must not wait until the client reads
//! more of the response.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::connection_limit::ConnectionPermit;
use super::head_lines::{Expectation, MixedLines};
use super::lingering_close::CountedSocket;
use super::pool::{Pool, PoolSettings};
use super::response_body::UpstreamBody;
use super::slot_hold::{SlotHold, SlotShare};
use crate::body::{RequestBody, RequestBodyState};
use crate::clock::LazyTimer;
use crate::socket::BUFFER;

/// Why no connection could be made. No byte of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect")]
    Failed(#[source] std::io::Error),
    /// A limit of the proxy's system, not a failure of the instance.
    #[error("the system has no more sockets or ports for us")]
    Exhausted(#[source] std::io::Error),
    #[error("connecting took longer than allowed")]
    TimedOut,
    /// A limit of the proxy, not a failure of the instance.
    #[error("as many connections to the instance are in use as it may have")]
    Full,
    /// A limit of the proxy, not a failure of the instance.
    #[error("as many connections to instances are in use as there may be")]
    TooMany,
    #[error("the connection could not be set up")]
    Setup(#[source] hyper::Error),
}

impl ConnectError {
    /// Whether the connect was refused, so no process listens at the address.
    pub fn is_refusal(&self) -> bool {
        matches!(self, ConnectError::Failed(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// Whether the error is a lack of local resources: too many open files in the system or process, or no free
/// local port.
pub fn is_exhaustion(error: &std::io::Error) -> bool {
    /// These values are the same on all supported systems.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    error.kind() == std::io::ErrorKind::AddrNotAvailable
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Why a request got no response.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No byte was sent, and the request was handed back. It may be retried on another instance or
    /// connection.
    #[error("the connection was closed before the request was sent")]
    Unsent,
    /// The instance may have processed the request.
    #[error("the connection broke before the head of the answer")]
    Broken(#[source] hyper::Error),
    /// The instance may have processed the request, but no byte of a response was received.
    #[error("the connection ended before the first byte of the answer")]
    Silent(#[source] hyper::Error),
    /// The instance has processed the request. The response head exceeds the configured limit.
    #[error("the head of the answer is larger than allowed")]
    HeadTooLarge,
    /// The instance has processed the request. Its response cannot be forwarded.
    #[error("the head of the answer is malformed")]
    Malformed(#[source] MalformedHead),
    #[error("no head of an answer in time")]
    TimedOut,
    #[error("no body behind the head of an answer in time")]
    Stalled,
}

/// What is wrong with the response head.
#[derive(Debug, thiserror::Error)]
pub enum MalformedHead {
    #[error(transparent)]
    Lines(MixedLines),
    #[error(transparent)]
    Syntax(hyper::Error),
}

impl SendError {
    /// Classifies an error of hyper. `has_heard` is whether a byte of a response was received.
    fn of(error: hyper::Error, has_heard: bool) -> Self {
        match MixedLines::of(&error) {
            Some(mixed) => SendError::Malformed(MalformedHead::Lines(mixed)),
            None if error.is_parse_too_large() => SendError::HeadTooLarge,
            None if error.is_parse() && error.to_string() != NOT_HTTP => {
                SendError::Malformed(MalformedHead::Syntax(error))
            }
            None if has_heard => SendError::Broken(error),
            None => SendError::Silent(error),
        }
    }
}

/// The only way to recognize that the received bytes are not HTTP at all: hyper has no error kind for it.
const NOT_HTTP: &str = "invalid HTTP version parsed";

/// Parser settings for responses. As RFC 9112 requires of a proxy, spaces before colons (section 5.1) and
/// line folding (section 5.2) are accepted and normalized.
fn builder(settings: &PoolSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(settings.header_count)
        .max_header_size(settings.header_bytes)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        // hyper requires that a whole head fits into its buffer.
        .max_buf_size(settings.header_bytes.max(BUFFER));
    builder
}

/// hyper's connection future, which reads from and writes to the socket.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An open connection that carries one request at a time. It is boxed, because it is moved several times per
/// request.
pub struct Connection {
    sender: SendRequest<RequestBody>,
    /// `None` when the connection has ended.
    driver: Option<Driver>,
    /// Set before each request: the next bytes received are a response head.
    expectation: Arc<Expectation>,
    pub(super) timer: LazyTimer,
    /// When it was last returned to the pool.
    pub(super) idle_since: Instant,
    pub(super) opened: Instant,
    /// Number of requests sent on it.
    pub(super) requests: u32,
    link: Arc<SlotHold>,
    /// Whether a claim is held for the present exchange.
    claimed: bool,
}

impl Connection {
    /// Connects to `address` within the connect timeout. The socket keeps `permit`, see [`CountedSocket`].
    pub(super) async fn open(
        address: SocketAddr,
        settings: &PoolSettings,
        permit: ConnectionPermit,
    ) -> Result<Box<Self>, ConnectError> {
        let limit = settings.connect;
        let stream = timeout(limit, TcpStream::connect(address)).await.map_err(|_| ConnectError::TimedOut)?;
        let stream = stream.map_err(|error| match is_exhaustion(&error) {
            true => ConnectError::Exhausted(error),
            false => ConnectError::Failed(error),
        })?;
        stream.set_nodelay(true).map_err(ConnectError::Failed)?;
        let (link, expectation) = (Arc::<SlotHold>::default(), Arc::<Expectation>::default());
        let abandoned = settings.abandoned;
        let (sender, driver) = builder(settings)
            .handshake(CountedSocket::new(stream, permit, abandoned, link.clone(), expectation.clone()))
            .await
            .map_err(ConnectError::Setup)?;
        let now = Instant::now();
        let driver: Driver = Box::pin(driver.with_upgrades());
        let timer = LazyTimer::new(now, limit);
        let (idle_since, opened) = (now, now);
        let driver = Some(driver);
        let mut connection = Box::new(Connection {
            sender,
            driver,
            expectation,
            timer,
            idle_since,
            opened,
            requests: 0,
            link,
            claimed: false,
        });
        connection.drive(&mut no_waker());
        Ok(connection)
    }

    /// Makes all progress that is possible on the socket now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            // The error, if any, is also reported to the future that waits for the response.
            self.driver = None;
        }
    }

    /// The response is complete or dropped. Releases the claim.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.claimed) {
            drop(self.link.take_claim());
        }
    }

    /// Whether the connection can carry another request. Returns false if the exchange is not over in both
    /// directions, or if the instance has closed the connection. Afterwards no task is registered to be woken
    /// for it.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.drive(&mut no_waker());
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends `request` and waits for the response head. `now` is the present time. The wait is limited to
    /// `first_byte` after the last progress of the request body, which `upload` shows.
    ///
    /// The request is taken out of `request`, and put back on [`SendError::Unsent`]. Dropping the future, or
    /// the response body before its end, closes the connection. The end of the response also ends the
    /// transfer of the rest of the request. `claim` is held until the response is over. If the response is
    /// abandoned, `claim` is held until the instance has finished the request, as far as the proxy can detect
    /// that.
    pub async fn send(
        mut self: Box<Self>,
        request: &mut Option<Box<Request<RequestBody>>>,
        upload: Option<&Arc<RequestBodyState>>,
        claim: Option<SlotShare>,
        home: &Arc<Pool>,
        now: Instant,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let Some(taken) = request.take() else { return Err(SendError::Unsent) };
        let first_byte = home.settings().first_byte;
        self.timer.arm(now, first_byte);
        self.requests = self.requests.saturating_add(1);
        self.claimed = claim.is_some();
        self.link.begin(claim);
        self.expectation.set();
        let sent = self.sender.try_send_request(*taken);
        let answer = self.wait_for_head(sent, upload.map(Arc::as_ref), first_byte).await;
        match answer {
            None => Err(SendError::TimedOut),
            Some(Ok(answer)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                Ok(self.upgrade(answer))
            }
            Some(Ok(answer)) => Ok(answer.map(|incoming| match upload.filter(|upload| !upload.is_over()) {
                Some(upload) => self.spawn_driver(incoming, upload.clone(), home),
                None => UpstreamBody::new(incoming, self, home.clone()),
            })),
            Some(Err(mut error)) => {
                *request = error.take_message().map(Box::new);
                Err(match request {
                    Some(_) => SendError::Unsent,
                    None => SendError::of(error.into_error(), self.link.has_heard()),
                })
            }
        }
    }

    /// Returns `None` on timeout.
    async fn wait_for_head<T>(
        &mut self,
        sent: impl Future<Output = T>,
        upload: Option<&RequestBodyState>,
        first_byte: Duration,
    ) -> Option<T> {
        let (mut sent, mut uploaded, mut woken) = (pin!(sent), 0, false);
        poll_fn(|cx| {
            if std::mem::replace(&mut woken, true) {
                // The head has probably arrived. hyper keeps the waker it is polled with now until the body
                // is first polled, and wakes it. With the task's own waker that would be one needless poll of
                // the client's task.
                self.drive(&mut no_waker());
                if let Poll::Ready(answer) = sent.as_mut().poll(&mut no_waker()) {
                    return Poll::Ready(Some(answer));
                }
            }
            self.drive(cx);
            if let Poll::Ready(answer) = sent.as_mut().poll(&mut no_waker()) {
                return Poll::Ready(Some(answer));
            }
            let bytes = upload.map_or(0, RequestBodyState::bytes);
            if bytes != uploaded {
                uploaded = bytes;
                self.timer.arm(Instant::now(), first_byte);
            }
            // When the task has used up its tokio coop budget, a head that has arrived looks pending, and the
            // no-op waker is not woken. The timer checks the budget too, with the task's waker, so the task
            // is polled again.
            self.timer.poll_expired(cx).map(|()| None)
        })
        .await
    }

    /// Spawns a task that drives the connection while its request and its response `incoming` are streamed at
    /// the same time.
    fn spawn_driver(
        self,
        incoming: Incoming,
        upload: Arc<RequestBodyState>,
        home: &Arc<Pool>,
    ) -> UpstreamBody {
        // An error is reported to the reader of the response.
        let task = self.driver.map(|driver| AbortOnDropHandle::new(tokio::spawn(driver.map(drop))));
        UpstreamBody::with_upload(incoming, task, self.timer, upload, home.settings().idle, self.link)
    }

    /// Hands the connection over to the tunnel. The driver then yields the socket.
    fn upgrade(self, answer: Response<Incoming>) -> Response<UpstreamBody> {
        if let Some(driver) = self.driver {
            // An error is reported to the future that waits for the upgraded socket.
            tokio::spawn(driver.map(drop));
        }
        answer.map(UpstreamBody::detached)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("open", &self.driver.is_some()).finish_non_exhaustive()
    }
}

/// A context for polls whose readiness is noticed in another way.
pub(super) fn no_waker() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn our_own_lack_of_sockets_is_told_from_a_refusal() {
        assert!(is_exhaustion(&Error::from_raw_os_error(24)));
        assert!(is_exhaustion(&ErrorKind::AddrNotAvailable.into()));
        assert!(!is_exhaustion(&ErrorKind::ConnectionRefused.into()));
    }
}
