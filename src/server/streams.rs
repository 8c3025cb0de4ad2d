//! The streams of an HTTP/2 connection. Each stream is a task that is aborted when its client does not read
//! the response. The memory of the response is accounted for until the client reads it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;

use super::io::InFlight;
use crate::body_memory::{Piece, StreamMemory, Way};
use crate::proxy::ResponseBody;
use crate::transport::UpstreamBodyError;

/// A body whose last piece is at most this long ends together with the piece. After a longer piece the end is
/// delayed until all of it is sent: a stream that has ended can no longer be reset.
const ENDED_WITH: usize = 4 * 1024;

/// Executor for the stream tasks of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Option<Arc<StreamMemory>>>>);

impl Streams {
    /// Assigns `hold` to the next task. hyper calls the service and spawns the stream's task without a break
    /// in between.
    pub(super) fn expect(&self, hold: Arc<StreamMemory>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(hold) => tokio::spawn(until_cut(stream, hold)),
            None => tokio::spawn(stream),
        };
    }
}

/// Runs `stream` until it ends or is cut. Dropping an unfinished stream resets it.
async fn until_cut(stream: impl Future<Output = ()>, hold: Arc<StreamMemory>) {
    let task = Task(hold);
    let mut stream = pin!(stream);
    poll_fn(|cx| match task.0.poll_cut(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => stream.as_mut().poll(cx),
    })
    .await;
}

/// Marks the stream as ended when its task is dropped.
struct Task(Arc<StreamMemory>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// Body of a response. Its request counts as in flight until the body is dropped.
pub(super) struct StreamBody {
    /// `None` after the end of the body.
    body: Option<ResponseBody>,
    _running: InFlight,
    hold: Arc<StreamMemory>,
    /// Whether the last piece was returned and was short.
    is_over: bool,
    /// The error that broke the body, to be returned by the next poll.
    error: Option<UpstreamBodyError>,
}

impl StreamBody {
    pub(super) fn new(body: ResponseBody, running: InFlight, hold: Arc<StreamMemory>) -> Self {
        let is_over = body.is_end_stream();
        StreamBody { body: Some(body), _running: running, hold, is_over, error: None }
    }
}

impl Body for StreamBody {
    type Data = Piece;
    type Error = UpstreamBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(body) = &mut this.body else {
            return this.hold.poll_taken(Way::Answer, cx).map(|()| None);
        };
        ready!(this.hold.poll_room(Way::Answer, cx));
        let Some(next) = ready!(Pin::new(&mut *body).poll_frame(cx)) else {
            this.body = None;
            return this.hold.poll_taken(Way::Answer, cx).map(|()| None);
        };
        let has_ended = body.is_end_stream();
        let frame = match next {
            Ok(frame) => frame.map_data(|data| this.hold.piece(Way::Answer, data)),
            Err(error) => {
                // The error is delayed by one poll: the reset that it causes discards everything unwritten,
                // possibly the response head.
                this.error = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        };
        if has_ended {
            this.is_over = frame.data_ref().is_none_or(|data| data.remaining() <= ENDED_WITH);
            this.body = None;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
