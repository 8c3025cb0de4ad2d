//! One HTTP/1.1 connection to an instance, and the answer that streams out of it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::pool::{Pool, PoolKey};
use crate::body::{RequestBody, RequestBodyState};
use crate::clock::LazyTimer;

/// Why no connection could be made. Nothing of a request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot connect")]
    Failed(#[source] std::io::Error),
    #[error("connecting took longer than allowed")]
    TimedOut,
    #[error("the connection could not be set up")]
    Setup(#[source] hyper::Error),
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Provably nothing was sent: the request may go elsewhere.
    #[error("the connection was closed before the request was sent")]
    Unsent(Box<Request<RequestBody>>),
    /// The instance may have seen the request.
    #[error("the connection broke before the head of the answer")]
    Broken(#[source] hyper::Error),
    #[error("no head of an answer in time")]
    TimedOut,
}

/// An open connection that carries one request at a time.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<RequestBody>,
    timer: LazyTimer,
    /// When it was last given back.
    pub(super) idle_since: Instant,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr, limit: Duration) -> Result<Self, ConnectError> {
        let stream = timeout(limit, TcpStream::connect(address)).await.map_err(|_| ConnectError::TimedOut)?;
        let stream = stream.map_err(ConnectError::Failed)?;
        stream.set_nodelay(true).map_err(ConnectError::Failed)?;
        let (sender, driver) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(ConnectError::Setup)?;
        // The driver's error also reaches whoever waits for the answer; here nobody would know what for.
        tokio::spawn(async move { drop(driver.with_upgrades().await) });
        let now = Instant::now();
        Ok(Connection { sender, timer: LazyTimer::new(now, limit), idle_since: now })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether the last exchange is over in both directions.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends `request` and waits for the head of the answer: at most `first_byte` after the last progress of
    /// its body, which `upload` shows. Dropping the future, or the body of the answer before its end, closes
    /// the connection.
    pub async fn send(
        mut self,
        request: Request<RequestBody>,
        upload: Option<&RequestBodyState>,
        first_byte: Duration,
        home: Home,
    ) -> Result<Response<UpstreamBody>, SendError> {
        self.timer.arm(Instant::now(), first_byte);
        let answer = {
            let mut exchange = pin!(self.sender.try_send_request(request));
            let (timer, mut uploaded) = (&mut self.timer, 0);
            poll_fn(|cx| {
                if let Poll::Ready(answer) = exchange.as_mut().poll(cx) {
                    return Poll::Ready(Some(answer));
                }
                let bytes = upload.map_or(0, RequestBodyState::bytes);
                if bytes != uploaded {
                    uploaded = bytes;
                    timer.arm(Instant::now(), first_byte);
                }
                timer.poll_expired(cx).map(|()| None)
            })
            .await
        };
        match answer {
            None => Err(SendError::TimedOut),
            Some(Ok(answer)) => Ok(answer.map(|incoming| UpstreamBody::new(incoming, self, home))),
            Some(Err(mut error)) => Err(match error.take_message() {
                Some(request) => SendError::Unsent(Box::new(request)),
                None => SendError::Broken(error.into_error()),
            }),
        }
    }
}

/// Where a connection goes when its exchange is over, and how patient its answer's reader is.
#[derive(Debug)]
pub struct Home {
    pub(super) pool: Arc<Pool>,
    pub(super) key: PoolKey,
}

/// Why an answer ended early. The client must see it as cut, never as complete.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamBodyError {
    #[error("the connection broke within the answer")]
    Broken(#[source] hyper::Error),
    #[error("the answer paused for longer than allowed")]
    Stalled,
}

/// The body of an answer. At its end the connection goes back to the pool; dropped before, it is closed.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    connection: Option<(Connection, Home)>,
}

impl UpstreamBody {
    fn new(incoming: Incoming, connection: Connection, home: Home) -> Self {
        let mut body = UpstreamBody { incoming, connection: Some((connection, home)) };
        if body.incoming.is_end_stream() {
            body.release();
        } else if let Some((connection, home)) = &mut body.connection {
            connection.timer.arm(Instant::now(), home.pool.settings().idle);
        }
        body
    }

    fn release(&mut self) {
        if let Some((connection, home)) = self.connection.take() {
            home.pool.put(home.key, connection);
        }
    }
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = UpstreamBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if this.incoming.is_end_stream() {
                    this.release();
                } else if let Some((connection, home)) = &mut this.connection {
                    connection.timer.arm(Instant::now(), home.pool.settings().idle);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.connection = None;
                Poll::Ready(Some(Err(UpstreamBodyError::Broken(error))))
            }
            Poll::Ready(None) => {
                this.release();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some((connection, _)) = &mut this.connection else { return Poll::Pending };
                ready!(connection.timer.poll_expired(cx));
                this.connection = None;
                Poll::Ready(Some(Err(UpstreamBodyError::Stalled)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
