//! The body of a response, streamed from its connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connection::{Connection, no_waker};
use super::pool::Pool;
use super::slot_hold::SlotHold;
use crate::body::RequestBodyState;
use crate::clock::LazyTimer;

/// Most bytes of a discarded response that are read to make its connection reusable.
const MOST_DISCARDED: usize = 64 * 1024;

/// Why a response ended early. The client must see it as truncated, never as complete.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamBodyError {
    #[error("the connection broke within the answer")]
    Broken(#[source] hyper::Error),
    #[error("the answer paused for longer than allowed")]
    Stalled,
    #[error("the instance was closed within the answer")]
    Closed,
}

/// A response body. At its end the connection returns to the pool. If the body is dropped earlier, the
/// connection is closed.
#[derive(Debug)]
pub struct UpstreamBody {
    incoming: Incoming,
    source: Source,
    /// Whether the idle timer is armed for the present pause of the response.
    pausing: bool,
    /// Parts that were read in advance, to be returned first.
    ahead: Ahead,
}

/// The beginning of a body, or all of it, read in advance.
#[derive(Debug, Default)]
struct Ahead {
    first: Option<Bytes>,
    second: Option<Bytes>,
    trailers: Option<Box<HeaderMap>>,
    /// Whether nothing follows.
    is_all: bool,
}

/// The source of the body.
#[derive(Debug)]
enum Source {
    /// A connection that is driven by polling the body.
    Connection(Box<Connection>, Arc<Pool>),
    /// A connection that is driven by a task.
    Task(Box<Duplex>),
    /// The body is over, or the connection was handed over to a tunnel.
    Over,
}

/// A response whose request is still being sent. Dropping it closes the connection.
#[derive(Debug)]
struct Duplex {
    _task: Option<AbortOnDropHandle<()>>,
    timer: LazyTimer,
    idle: Duration,
    upload: Arc<RequestBodyState>,
    /// Bytes of the request sent when the timer was armed.
    uploaded: u64,
    link: Arc<SlotHold>,
}

impl UpstreamBody {
    /// The body of a response whose request has been sent. The connection returns to `home` at its end.
    pub(super) fn new(incoming: Incoming, connection: Box<Connection>, home: Arc<Pool>) -> Self {
        let mut body = UpstreamBody {
            incoming,
            source: Source::Connection(connection, home),
            pausing: false,
            ahead: Ahead::default(),
        };
        if body.incoming.is_end_stream() {
            body.release();
        }
        body
    }

    /// The body of a response that begins before `upload` is over. `task` drives the connection. The body
    /// fails if neither direction makes progress for `idle`. This is checked in steps of that length, so it
    /// fails after at most twice as long.
    pub(super) fn with_upload(
        incoming: Incoming,
        task: Option<AbortOnDropHandle<()>>,
        timer: LazyTimer,
        upload: Arc<RequestBodyState>,
        idle: Duration,
        link: Arc<SlotHold>,
    ) -> Self {
        let duplex = Duplex { _task: task, timer, idle, upload, uploaded: 0, link };
        UpstreamBody {
            incoming,
            source: Source::Task(Box::new(duplex)),
            pausing: false,
            ahead: Ahead::default(),
        }
    }

    /// The body of a response whose connection is handed over to a tunnel.
    pub(super) fn detached(incoming: Incoming) -> Self {
        UpstreamBody { incoming, source: Source::Over, pausing: false, ahead: Ahead::default() }
    }

    /// Waits for the first piece of a body of known length, and buffers it. A response that breaks before its
    /// first piece is thus detected while the request can still be retried on another instance. A body of
    /// unknown length may be a stream, so it is not waited for. Cancel-safe.
    pub async fn begin(&mut self) -> Result<(), UpstreamBodyError> {
        if self.size_hint().exact().is_none() || self.is_end_stream() {
            return Ok(());
        }
        let frame = poll_fn(|cx| self.poll_next(cx)).await.transpose()?;
        self.ahead.keep(frame);
        Ok(())
    }

    /// Buffers up to two pieces of the body that have already arrived. A response that breaks there is thus
    /// detected while an error response can still be sent to the client.
    pub fn look_ahead(&mut self) -> Result<(), UpstreamBodyError> {
        while self.ahead.has_room() && !self.incoming.is_end_stream() {
            let Poll::Ready(next) = self.poll_next(&mut no_waker()) else { break };
            self.ahead.keep(next.transpose()?);
        }
        Ok(())
    }

    /// Discards the response. If the rest of the body has already arrived, its connection becomes reusable.
    pub fn discard(mut self) {
        let mut read = 0;
        while read < MOST_DISCARDED
            && let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut self).poll_frame(&mut no_waker())
        {
            read += frame.data_ref().map_or(0, Bytes::len);
        }
    }

    /// Ends the exchange: returns the connection to its pool or releases the claim.
    fn release(&mut self) {
        match std::mem::replace(&mut self.source, Source::Over) {
            Source::Connection(connection, home) => home.put(connection),
            Source::Task(duplex) => drop(duplex.link.take_claim()),
            Source::Over => {}
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Source::Task(_) = self.source {
            return Pin::new(&mut self.incoming).poll_frame(cx);
        }
        let next = Pin::new(&mut self.incoming).poll_frame(&mut no_waker());
        if next.is_pending()
            && let Source::Connection(connection, _) = &mut self.source
        {
            connection.drive(cx);
            return Pin::new(&mut self.incoming).poll_frame(&mut no_waker());
        }
        next
    }

    /// Ready when the response has paused for longer than the idle timeout.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let pausing = std::mem::replace(&mut self.pausing, true);
        match &mut self.source {
            Source::Connection(connection, home) => {
                if !pausing {
                    connection.timer.arm(Instant::now(), home.settings().idle);
                }
                connection.timer.poll_expired(cx)
            }
            Source::Task(duplex) => duplex.poll_stalled(pausing, cx),
            Source::Over => Poll::Pending,
        }
    }
}

impl Duplex {
    fn poll_stalled(&mut self, mut pausing: bool, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !pausing {
                self.uploaded = self.upload.bytes();
                self.timer.arm(Instant::now(), self.idle);
            }
            ready!(self.timer.poll_expired(cx));
            if self.upload.bytes() == self.uploaded {
                return Poll::Ready(());
            }
            pausing = false;
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
        match this.ahead.take() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if this.ahead.is_all => Poll::Ready(None),
            None => this.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_empty() && (self.ahead.is_all || self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.incoming.size_hint();
        match rest.exact() {
            Some(exact) => SizeHint::with_exact(self.ahead.bytes() + exact),
            None => rest,
        }
    }
}

impl UpstreamBody {
    /// The next frame after those that were read in advance.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UpstreamBodyError>>> {
        let this = self;
        match this.poll_incoming(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.pausing = false;
                // Trailers are the last frame, so the body is complete without another poll.
                this.ahead.is_all |= frame.is_trailers();
                if this.ahead.is_all || this.incoming.is_end_stream() {
                    this.release();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.source = Source::Over;
                Poll::Ready(Some(Err(UpstreamBodyError::Broken(error))))
            }
            Poll::Ready(None) => {
                this.release();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.poll_stalled(cx));
                this.source = Source::Over;
                Poll::Ready(Some(Err(UpstreamBodyError::Stalled)))
            }
        }
    }
}

impl Ahead {
    fn has_room(&self) -> bool {
        self.second.is_none() && self.trailers.is_none() && !self.is_all
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.second.is_none() && self.trailers.is_none()
    }

    fn bytes(&self) -> u64 {
        [&self.first, &self.second].into_iter().flatten().map(|piece| piece.len() as u64).sum()
    }

    /// Buffers the next frame; `None` is the end of the body.
    fn keep(&mut self, frame: Option<Frame<Bytes>>) {
        let Some(frame) = frame else {
            self.is_all = true;
            return;
        };
        match frame.into_data() {
            Ok(piece) if self.first.is_none() => self.first = Some(piece),
            Ok(piece) => self.second = Some(piece),
            // A frame is either data or trailers.
            Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
        }
    }

    fn take(&mut self) -> Option<Frame<Bytes>> {
        let piece = self.first.take().or_else(|| self.second.take());
        piece.map(Frame::data).or_else(|| self.trailers.take().map(|trailers| Frame::trailers(*trailers)))
    }
}
