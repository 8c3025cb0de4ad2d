//! The streams of an HTTP/2 connection: each is a task that ends when its client takes nothing of its answer, and
//! whose answer is counted until it is taken.

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

/// A body whose last piece is no longer than this ends with it. A longer one ends when all of it is taken: a stream
/// that has ended cannot be reset any more.
const ENDED_WITH: usize = 4 * 1024;

/// Runs the streams of one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Option<Arc<StreamMemory>>>>);

impl Streams {
    /// The next task is the stream of `hold`: hyper asks the service and starts the task in one go.
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

/// Runs `stream` to its end, or until it is cut: dropped before its end, it is reset.
async fn until_cut(stream: impl Future<Output = ()>, hold: Arc<StreamMemory>) {
    let task = Task(hold);
    let mut stream = pin!(stream);
    poll_fn(|cx| match task.0.poll_cut(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => stream.as_mut().poll(cx),
    })
    .await;
}

/// Tells the stream when its task is over.
struct Task(Arc<StreamMemory>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// The body of an answer; its request counts as running until it is dropped.
pub(super) struct StreamBody {
    /// `None` once it has come to its end.
    body: Option<ResponseBody>,
    _running: InFlight,
    hold: Arc<StreamMemory>,
    /// Whether the last piece is out, and was short.
    is_over: bool,
    /// Why the body broke off; to be told next.
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
                // The reset that follows takes with it what is not written yet, be it the head.
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
