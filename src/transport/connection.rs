//! One HTTP/1.1 connection to an instance.
//!
//! A connection has no task of its own: whoever waits for its answer drives it. A request therefore costs
//! no wake-up of another task, hyper's channels between the two halves need no wakers (hence the contexts
//! without one: they become ready only while the driver is polled), and dropping the answer closes the
//! connection at once. Only when an answer begins before its request has ended, a task takes over: the rest
//! of the request must not wait until somebody asks for more of the answer.

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

/// Why no connection could be made. Nothing of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect")]
    Failed(#[source] std::io::Error),
    /// The lack is ours, not the instance's.
    #[error("the system has no more sockets or ports for us")]
    Exhausted(#[source] std::io::Error),
    #[error("connecting took longer than allowed")]
    TimedOut,
    /// The lack is ours, not the instance's.
    #[error("as many connections to the instance are in use as it may have")]
    Full,
    /// The lack is ours, not the instance's.
    #[error("as many connections to instances are in use as there may be")]
    TooMany,
    #[error("the connection could not be set up")]
    Setup(#[source] hyper::Error),
}

impl ConnectError {
    /// Whether nobody listens there.
    pub fn is_refusal(&self) -> bool {
        matches!(self, ConnectError::Failed(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }
}

/// Whether the lack is ours: too many open files, of the system's or of ours, or no port left to connect from.
pub fn is_exhaustion(error: &std::io::Error) -> bool {
    /// The same on all systems that we run on.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    error.kind() == std::io::ErrorKind::AddrNotAvailable
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Provably nothing was sent, and the request was handed back: it may go elsewhere.
    #[error("the connection was closed before the request was sent")]
    Unsent,
    /// The instance may have seen the request.
    #[error("the connection broke before the head of the answer")]
    Broken(#[source] hyper::Error),
    /// Likewise, but not a byte of an answer had come.
    #[error("the connection ended before the first byte of the answer")]
    Silent(#[source] hyper::Error),
    /// The instance has executed the request, and says more than we are to read.
    #[error("the head of the answer is larger than allowed")]
    HeadTooLarge,
    /// The instance has executed the request; what it says cannot be passed on.
    #[error("the head of the answer is malformed")]
    Malformed(#[source] MalformedHead),
    #[error("no head of an answer in time")]
    TimedOut,
    #[error("no body behind the head of an answer in time")]
    Stalled,
}

/// What is wrong with the head of an answer.
#[derive(Debug, thiserror::Error)]
pub enum MalformedHead {
    #[error(transparent)]
    Lines(MixedLines),
    #[error(transparent)]
    Syntax(hyper::Error),
}

impl SendError {
    /// Why there is no answer; `has_heard`: a byte of one had come.
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

/// hyper's only sign that what came is no HTTP at all.
const NOT_HTTP: &str = "invalid HTTP version parsed";

/// Reads responses as RFC 9112 wants it of a proxy: without spaces before colons (section 5.1) and line folding (5.2).
fn builder(settings: &PoolSettings) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(settings.header_count)
        .max_header_size(settings.header_bytes)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        // A whole head must fit into the buffer.
        .max_buf_size(settings.header_bytes.max(BUFFER));
    builder
}

/// hyper's side of a connection.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An open connection that carries one request at a time. It lives in a box, because it goes from hand to hand with
/// every request.
pub struct Connection {
    sender: SendRequest<RequestBody>,
    /// `None` when the connection has come to its end.
    driver: Option<Driver>,
    /// Set with each request: a head comes next.
    expectation: Arc<Expectation>,
    pub(super) timer: LazyTimer,
    /// When it was last given back.
    pub(super) idle_since: Instant,
    pub(super) opened: Instant,
    /// Requests sent on it so far.
    pub(super) requests: u32,
    link: Arc<SlotHold>,
    /// Whether something is held for the exchange.
    claimed: bool,
}

impl Connection {
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

    /// Does what can be done on the socket now.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            // The error, if it was one, has also gone to whoever waits for the answer.
            self.driver = None;
        }
    }

    /// The answer is over.
    pub(super) fn end(&mut self) {
        if std::mem::take(&mut self.claimed) {
            drop(self.link.take_claim());
        }
    }

    /// Comes to rest after an exchange, or looks around while resting: false when the exchange is not over in
    /// both directions or the instance has closed the connection. Afterwards nobody's task is woken for it.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.drive(&mut no_waker());
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Sends `request` `now` and waits for the head of the answer: at most `first_byte` after the last progress of
    /// its body, which `upload` shows. Takes the request out of its place, and puts it back when it is
    /// [`SendError::Unsent`]. Dropping the future, or the body of the answer before its end, closes the
    /// connection; the end of the answer ends what is left of the request, too. `claim` is held until the answer is over
    /// or, when that is not waited for, until the instance is done with the request, as far as that can be known.
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

    /// `None` when the time is over.
    async fn wait_for_head<T>(
        &mut self,
        sent: impl Future<Output = T>,
        upload: Option<&RequestBodyState>,
        first_byte: Duration,
    ) -> Option<T> {
        let (mut sent, mut uploaded, mut woken) = (pin!(sent), 0, false);
        poll_fn(|cx| {
            if std::mem::replace(&mut woken, true) {
                // The head has probably come. hyper keeps the waker it then has until the body is first asked
                // for, and wakes it: if it were the task's, a whole turn of the client's task for nothing.
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
            // When the task has used up its turn (tokio's budget), a head that has come may look as if it had
            // not, to a waker that wakes nobody. The timer looks at the budget too, and with the task's waker.
            self.timer.poll_expired(cx).map(|()| None)
        })
        .await
    }

    /// Lets a task drive the connection while its request and its answer `incoming` stream at the same time.
    fn spawn_driver(
        self,
        incoming: Incoming,
        upload: Arc<RequestBodyState>,
        home: &Arc<Pool>,
    ) -> UpstreamBody {
        // An error reaches whoever reads the answer.
        let task = self.driver.map(|driver| AbortOnDropHandle::new(tokio::spawn(driver.map(drop))));
        UpstreamBody::with_upload(incoming, task, self.timer, upload, home.settings().idle, self.link)
    }

    /// The connection belongs to the tunnel from here on; its driver hands the socket over.
    fn upgrade(self, answer: Response<Incoming>) -> Response<UpstreamBody> {
        if let Some(driver) = self.driver {
            // An error reaches whoever waits for the socket.
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
