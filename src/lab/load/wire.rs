//! One connection to the target.
//!
//! An HTTP/1.1 connection has no task of its own: the task that waits for the response drives it, so a
//! request costs no wake-up of another task. hyper's two halves then need no wakers for each other, hence the
//! contexts with a no-op waker.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::failure::{Failure, NoConnection};
use super::outgoing::Outgoing;
use super::stream::Stream;
use super::target::Target;
use crate::clock::LazyTimer;

/// After a longer pause the connection may have been closed without the runtime having polled its socket.
const NEWS_AFTER: Duration = Duration::from_millis(100);

/// An open connection and its read timeout (`patience`).
#[derive(Debug)]
pub(super) struct Wire {
    sender: Sender,
    /// For HTTP/1.1, until the connection has ended.
    driver: Driver,
    /// For HTTP/2.
    _task: Option<AbortOnDropHandle<()>>,
    patience: Duration,
    timer: LazyTimer,
    used: Instant,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Outgoing>),
    Http2(http2::SendRequest<Outgoing>),
}

/// Why a request has no response.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// Provably nothing was sent.
    Unsent,
    Failed(Failure),
}

impl Wire {
    /// Connects. `patience` is the timeout for the connect, and later for each wait for a byte of a response.
    pub(super) async fn connect(target: &Target, patience: Duration) -> Result<Wire, NoConnection> {
        timeout(patience, Wire::open(target, patience)).await.map_err(|_| NoConnection {
            failure: Failure::Timeout,
            cause: format!("no connection within {} ms", patience.as_millis()),
        })?
    }

    async fn open(target: &Target, patience: Duration) -> Result<Wire, NoConnection> {
        let refused = |error: hyper::Error| NoConnection::new(Failure::Handshake, &error);
        let (stream, http2) = target.connect().await?;
        let io = TokioIo::new(stream);
        let (sender, driver, task) = if http2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            let hands = builder.timer(TokioTimer::new()).handshake(io).await;
            let (sender, connection) = hands.map_err(refused)?;
            // The waiting request receives the error.
            let task = tokio::spawn(async move { drop(connection.await) });
            (Sender::Http2(sender), None, Some(AbortOnDropHandle::new(task)))
        } else {
            let (sender, driver) = http1::handshake(io).await.map_err(refused)?;
            (Sender::Http1(sender), Some(Box::pin(driver)), None)
        };
        let now = Instant::now();
        let mut wire =
            Wire { sender, driver, _task: task, patience, timer: LazyTimer::new(now, patience), used: now };
        match wire.is_usable().await {
            true => Ok(wire),
            false => Err(NoConnection {
                failure: Failure::Handshake,
                cause: "it was accepted and closed at once".to_owned(),
            }),
        }
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// Whether another request can be sent.
    pub(super) async fn is_usable(&mut self) -> bool {
        let now = Instant::now();
        if now - self.used > NEWS_AFTER {
            // Lets the runtime poll its sockets.
            tokio::task::yield_now().await;
        }
        self.timer.arm(now, self.patience);
        let Wire { sender, driver, timer, .. } = self;
        let ready = wait(driver, timer, |cx| match sender {
            Sender::Http1(sender) => sender.poll_ready(cx),
            Sender::Http2(sender) => sender.poll_ready(cx),
        });
        ready.await.is_some_and(|ready| ready.is_ok())
    }

    /// Sends a request and waits for the response head.
    pub(super) async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, NoAnswer> {
        self.timer.arm(Instant::now(), self.patience);
        let Wire { sender, driver, timer, .. } = self;
        let answer = match sender {
            Sender::Http1(sender) => {
                let mut sent = pin!(sender.try_send_request(request));
                wait(driver, timer, |cx| sent.as_mut().poll(cx)).await
            }
            Sender::Http2(sender) => {
                let mut sent = pin!(sender.try_send_request(request));
                wait(driver, timer, |cx| sent.as_mut().poll(cx)).await
            }
        };
        match answer {
            None => Err(NoAnswer::Failed(Failure::Timeout)),
            Some(answer) => answer.map_err(no_answer),
        }
    }

    /// The next frame of a response body with its arrival time. `None` at the end.
    pub(super) async fn frame(
        &mut self,
        body: &mut Incoming,
    ) -> Option<Result<(Frame<Bytes>, Instant), Failure>> {
        let Wire { driver, timer, .. } = self;
        let frame = wait(driver, timer, |cx| Pin::new(&mut *body).poll_frame(cx)).await;
        let now = Instant::now();
        self.used = now;
        match frame {
            None => Some(Err(Failure::Timeout)),
            Some(None) => None,
            Some(Some(Err(_))) => Some(Err(Failure::Cut)),
            Some(Some(Ok(frame))) => {
                self.timer.arm(now, self.patience);
                Some(Ok((frame, now)))
            }
        }
    }
}

fn no_answer(mut error: TrySendError<Request<Outgoing>>) -> NoAnswer {
    match error.take_message() {
        Some(_) => NoAnswer::Unsent,
        None if error.error().is_parse() => NoAnswer::Failed(Failure::Invalid),
        None => NoAnswer::Failed(Failure::Cut),
    }
}

type Driver = Option<Pin<Box<http1::Connection<TokioIo<Stream>, Outgoing>>>>;

/// Polls until ready and drives the connection meanwhile. `None` when the timer expires.
async fn wait<T>(
    driver: &mut Driver,
    timer: &mut LazyTimer,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Option<T> {
    let mut woken = false;
    poll_fn(|cx| {
        // Data that has probably arrived is read without a waker first: hyper would store the waker and cause
        // a spurious wake-up.
        if std::mem::replace(&mut woken, true) {
            drive(driver, &mut no_waker());
        }
        if let Poll::Ready(ready) = poll(&mut no_waker()) {
            return Poll::Ready(Some(ready));
        }
        drive(driver, cx);
        let ready = if driver.is_some() { poll(&mut no_waker()) } else { poll(cx) };
        if let Poll::Ready(ready) = ready {
            return Poll::Ready(Some(ready));
        }
        // When tokio's coop budget is used up, a poll with the no-op waker returns pending and its wake-up is
        // lost. The timer checks the budget too, with the task's real waker.
        timer.poll_expired(cx).map(|()| None)
    })
    .await
}

fn drive(driver: &mut Driver, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
        // The waiting request has also received the error.
        *driver = None;
    }
}

fn no_waker() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
