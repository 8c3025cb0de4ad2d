//! Request bodies with limits on size and idle time, and with filtered trailers.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use crate::body_memory::{Piece, StreamMemory, Way};
use crate::headers::name::NameSet;

/// Reason why a request body could not be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum RequestBodyError {
    #[error("the request body is larger than allowed")]
    TooLarge = 1,
    #[error("the client stopped sending the request body")]
    Stalled = 2,
    #[error("the client broke off the request body")]
    Aborted = 3,
    #[error("the chunks of the request body are malformed")]
    Malformed = 4,
}

impl RequestBodyError {
    /// Classifies a hyper body error: invalid data is a malformed body, anything else an aborted one.
    fn of(error: &hyper::Error) -> Self {
        let mut source = error.source();
        while let Some(error) = source {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(kind, Some(io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)) {
                return RequestBodyError::Malformed;
            }
            source = error.source();
        }
        RequestBodyError::Aborted
    }
}

/// State of a streaming request body. It can be read while another task owns the body.
#[derive(Debug, Default)]
pub struct RequestBodyState {
    bytes: AtomicU64,
    failure: AtomicU8,
    over: AtomicBool,
    /// Whether the body may be sent although the client waits for `100 Continue`.
    has_leave: AtomicBool,
    waiting: AtomicWaker,
}

impl RequestBodyState {
    /// Payload bytes read from the client so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether the body is not polled any more: it ended, failed or was dropped.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Releases a body that waits for `100 Continue`.
    pub fn give_leave(&self) {
        self.has_leave.store(true, Relaxed);
        self.waiting.wake();
    }

    /// The failure that ended the body, if there was one.
    pub fn failure(&self) -> Option<RequestBodyError> {
        match self.failure.load(Relaxed) {
            1 => Some(RequestBodyError::TooLarge),
            2 => Some(RequestBodyError::Stalled),
            3 => Some(RequestBodyError::Aborted),
            4 => Some(RequestBodyError::Malformed),
            _ => None,
        }
    }
}

/// Rules for one request body.
#[derive(Debug, Clone)]
pub struct RequestBodyRules {
    /// Maximum number of payload bytes; `None` means unlimited.
    pub max_bytes: Option<u64>,
    /// Maximum pause between two frames.
    pub idle: Duration,
    /// Trailer fields to remove.
    pub forbidden_trailers: Arc<NameSet>,
}

/// A client's request body on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// The request has no body.
    Empty,
    Streaming(Box<StreamingBody>),
}

/// State of a [`RequestBody`] that is not empty.
#[derive(Debug)]
pub struct StreamingBody {
    incoming: Incoming,
    rules: RequestBodyRules,
    state: Arc<RequestBodyState>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Accounts for the body's pieces until the instance has taken them. Used where one connection carries
    /// several bodies (HTTP/2).
    hold: Option<Arc<StreamMemory>>,
    leave: Leave,
}

/// Whether the body waits for `100 Continue`.
#[derive(Debug)]
enum Leave {
    Given,
    /// The body waits at most this long once it is polled.
    Needed(Duration),
    Awaited(Pin<Box<Sleep>>),
}

impl RequestBody {
    /// Applies `rules` to `incoming`, with `hold` accounting for its pieces. The returned state is `None` for
    /// a request without a body.
    pub fn new(
        incoming: Incoming,
        rules: &RequestBodyRules,
        hold: Option<Arc<StreamMemory>>,
    ) -> (Self, Option<Arc<RequestBodyState>>) {
        if incoming.is_end_stream() {
            return (RequestBody::Empty, None);
        }
        let state = Arc::new(RequestBodyState::default());
        let body = StreamingBody {
            incoming,
            rules: rules.clone(),
            state: state.clone(),
            pause: None,
            hold,
            leave: Leave::Given,
        };
        (RequestBody::Streaming(Box::new(body)), Some(state))
    }

    /// Delays reading from the client until [`RequestBodyState::give_leave`], or until `patience` has passed
    /// since the first poll. The timeout is needed because an instance may not support `100 Continue`.
    pub fn wait_for_leave(&mut self, patience: Duration) {
        if let RequestBody::Streaming(body) = self {
            body.leave = Leave::Needed(patience);
        }
    }
}

impl StreamingBody {
    fn poll_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Leave::Needed(patience) = self.leave {
            self.leave = Leave::Awaited(Box::pin(sleep(patience)));
        }
        if let Leave::Awaited(patience) = &mut self.leave {
            self.state.waiting.register(cx.waker());
            if !self.state.has_leave.load(Relaxed) {
                ready!(patience.as_mut().poll(cx));
            }
            self.leave = Leave::Given;
        }
        Poll::Ready(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Piece>, RequestBodyError>>> {
        ready!(self.poll_leave(cx));
        if let Some(hold) = &self.hold {
            ready!(hold.poll_room(Way::Upload, cx));
        }
        let Poll::Ready(next) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            let idle = self.rules.idle;
            ready!(self.pause.get_or_insert_with(|| Box::pin(sleep(idle))).as_mut().poll(cx));
            return Poll::Ready(Some(Err(self.fail(RequestBodyError::Stalled))));
        };
        if let Some(pause) = &mut self.pause {
            pause.as_mut().reset(Instant::now() + self.rules.idle);
        }
        Poll::Ready(next.map(|frame| match frame {
            Ok(frame) => self.check(frame),
            Err(error) => Err(self.fail(RequestBodyError::of(&error))),
        }))
    }

    fn check(&mut self, mut frame: Frame<Bytes>) -> Result<Frame<Piece>, RequestBodyError> {
        if let Some(data) = frame.data_ref() {
            let total = self.state.bytes() + data.len() as u64;
            self.state.bytes.store(total, Relaxed);
            if self.rules.max_bytes.is_some_and(|max| total > max) {
                return Err(self.fail(RequestBodyError::TooLarge));
            }
        } else if let Some(trailers) = frame.trailers_mut() {
            self.rules.forbidden_trailers.strip(trailers);
        }
        Ok(frame.map_data(|data| match &self.hold {
            Some(hold) => hold.piece(Way::Upload, data),
            None => data.into(),
        }))
    }

    fn fail(&self, error: RequestBodyError) -> RequestBodyError {
        self.state.failure.store(error as u8, Relaxed);
        error
    }
}

impl Drop for StreamingBody {
    fn drop(&mut self) {
        self.state.over.store(true, Relaxed);
    }
}

impl Body for RequestBody {
    type Data = Piece;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, RequestBodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Streaming(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Streaming(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Streaming(body) => body.incoming.size_hint(),
        }
    }
}
