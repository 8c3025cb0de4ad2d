//! Registry of the responses of an instance that are in flight for long, so that they can be counted, and
//! aborted when the instance is taken down.
//!
//! A response that arrives in one piece is not registered.

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::instance::Instance;

/// Any response that is in flight for this long counts as a stream.
pub const STREAM_AFTER: Duration = Duration::from_secs(10);

/// The registered responses of one instance.
#[derive(Debug, Default)]
pub(super) struct Streams {
    book: Mutex<Book>,
    closed: AtomicU64,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    /// Whether new responses are aborted at once.
    closing: bool,
    open: BTreeMap<u64, Arc<Entry>>,
}

#[derive(Debug)]
struct Entry {
    began: Instant,
    endless: bool,
    closed: AtomicBool,
    reader: AtomicWaker,
}

/// A registered response or tunnel. Dropping it ends the registration.
#[derive(Debug)]
pub struct Stream {
    instance: Arc<Instance>,
    number: u64,
    entry: Arc<Entry>,
}

impl Streams {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of responses that count as streams at `now`.
    pub(super) fn count(&self, now: Instant) -> usize {
        self.book().open.values().filter(|entry| entry.is_stream(now)).count()
    }

    /// Aborts all, and those that begin before [`Streams::reopen`]. Returns how many were aborted by this
    /// call.
    pub(super) fn close(&self) -> usize {
        let mut book = self.book();
        book.closing = true;
        let open: Vec<_> = book.open.values().filter(|entry| !entry.close()).cloned().collect();
        drop(book);
        open.iter().for_each(|entry| entry.reader.wake());
        self.closed.fetch_add(open.len() as u64, Relaxed);
        open.len()
    }

    /// Stops aborting new responses. Those aborted before stay aborted.
    pub(super) fn reopen(&self) {
        self.book().closing = false;
    }

    /// Total number of aborted responses.
    pub(super) fn closed(&self) -> u64 {
        self.closed.load(Relaxed)
    }
}

impl Entry {
    fn is_stream(&self, now: Instant) -> bool {
        self.endless || now.saturating_duration_since(self.began) >= STREAM_AFTER
    }

    /// Marks the response as aborted. Returns whether it was before.
    fn close(&self) -> bool {
        self.closed.swap(true, SeqCst)
    }
}

impl Stream {
    /// Registers a response of `instance` whose head has been forwarded. With `endless` it counts as a stream
    /// at once.
    pub fn begin(instance: &Arc<Instance>, endless: bool) -> Self {
        let streams = instance.streams_book();
        let mut book = streams.book();
        let number = book.next;
        book.next += 1;
        let closed = AtomicBool::new(book.closing);
        streams.closed.fetch_add(u64::from(book.closing), Relaxed);
        let entry =
            Arc::new(Entry { began: Instant::now(), endless, closed, reader: AtomicWaker::default() });
        book.open.insert(number, entry.clone());
        drop(book);
        Stream { instance: instance.clone(), number, entry }
    }

    /// Ready when the response must be aborted because its instance was closed. Only the last task that
    /// polled is woken.
    pub fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.entry.reader.register(cx.waker());
        if self.entry.closed.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.instance.streams_book().book().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::*;
    use crate::config::{self, InstanceState};
    use crate::upstream::Upstream;

    fn instance() -> Arc<Instance> {
        let instances = vec![config::Instance::at(([127, 0, 0, 1], 5001).into())];
        let config = config::Upstream { instances, ..config::Upstream::named("app") };
        Upstream::new(&config, None).instances()[0].clone()
    }

    fn is_closed(stream: &Stream) -> bool {
        poll_fn(|cx| stream.poll_closed(cx)).now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_becomes_a_stream_by_its_age_and_is_none_when_it_has_ended() {
        let instance = instance();
        let answers = [Stream::begin(&instance, true), Stream::begin(&instance, false)];
        let now = Instant::now();
        assert_eq!(instance.streams(now), 1);
        assert_eq!(instance.streams(now + STREAM_AFTER), 2);
        drop(answers);
        assert_eq!(instance.streams(now + STREAM_AFTER), 0);
    }

    #[tokio::test]
    async fn closing_wakes_who_reads_and_counts_each_once() {
        let instance = instance();
        let stream = Stream::begin(&instance, true);
        assert!(!is_closed(&stream));
        let ended = tokio::spawn(async move { poll_fn(|cx| stream.poll_closed(cx)).await });
        tokio::task::yield_now().await;
        assert_eq!((instance.close_streams(), instance.close_streams()), (1, 0));
        ended.await.unwrap();
        assert_eq!(instance.closed_streams(), 1);
    }

    #[tokio::test]
    async fn what_begins_on_a_closed_instance_ends_at_once_until_it_may_serve_again() {
        let instance = instance();
        instance.set_state(InstanceState::Down);
        assert_eq!(instance.close_streams(), 0);
        let late = Stream::begin(&instance, false);
        assert!(is_closed(&late));
        assert_eq!(instance.closed_streams(), 1);
        instance.set_state(InstanceState::Down);
        assert!(is_closed(&Stream::begin(&instance, true)));
        instance.set_state(InstanceState::Ready);
        assert!(!is_closed(&Stream::begin(&instance, true)));
        assert!(is_closed(&late));
    }
}
