//! The body of a stream, and the writing end that a run feeds.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::frames::PING;
use super::state::State;
use super::stats::Running;

/// A stream says that it lives after this long without a frame.
const PING_AFTER: Duration = Duration::from_secs(10);
/// Frames a slow reader may lag behind.
const BACKLOG: usize = 16;

/// Both ends of a new stream, counted as open until the body is dropped.
pub(super) fn feed(state: &Arc<State>, stopped: CancellationToken) -> (Feeder, Feed) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let running = Running::begin(state, |stats| &stats.streams);
    (Feeder { out: Some(sender), stopped, last: Instant::now() }, Feed { frames: receiver, running })
}

/// The body: ends when the feeder is dropped.
#[derive(Debug)]
pub(super) struct Feed {
    frames: mpsc::Receiver<Bytes>,
    running: Running,
}

impl http_body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = ready!(self.frames.poll_recv(context));
        if frame.is_none() {
            self.running.stats().streams_completed.fetch_add(1, Relaxed);
        }
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }
}

/// Why a run ends before its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// Somebody asked for it to stop; the closing frames still go out.
    Stopped,
    /// Nobody reads any more.
    Gone,
}

/// The writing end. A blocking answer uses one without a stream behind it: same pauses, nothing written.
#[derive(Debug)]
pub(super) struct Feeder {
    out: Option<mpsc::Sender<Bytes>>,
    stopped: CancellationToken,
    last: Instant,
}

impl Feeder {
    pub(super) fn silent(stopped: CancellationToken) -> Self {
        Feeder { out: None, stopped, last: Instant::now() }
    }

    /// Writes one frame; waits while the reader lags.
    pub(super) async fn send(&mut self, frame: Bytes) -> Result<(), Interrupted> {
        self.last = Instant::now();
        match &self.out {
            Some(out) => out.send(frame).await.map_err(|_| Interrupted::Gone),
            None => Ok(()),
        }
    }

    /// Lets time pass until `instant`, with a ping after each ten seconds of silence.
    pub(super) async fn wait_until(&mut self, instant: Instant) -> Result<(), Interrupted> {
        loop {
            let ping_at = self.last + PING_AFTER;
            tokio::select! {
                biased;
                () = self.stopped.cancelled() => return Err(Interrupted::Stopped),
                () = closed(self.out.as_ref()) => return Err(Interrupted::Gone),
                () = sleep_until(instant) => return Ok(()),
                () = sleep_until(ping_at) => self.send(PING).await?,
            }
        }
    }
}

/// Resolves when the reader is gone; never for a silent feeder.
async fn closed(out: Option<&mpsc::Sender<Bytes>>) {
    match out {
        Some(out) => out.closed().await,
        None => std::future::pending().await,
    }
}
