//! Accounting of the memory held for bodies with a slow reader, per process, connection and stream.
//!
//! A stream of a multiplexed connection reads another piece of a body only when there is room for it. While
//! its connection holds little, there is always room. Above [`CONNECTION`] bytes each stream reads piece by
//! piece. While the process is at its limit, streams do not read at all. A client's speed thus determines how
//! long memory is held for it, but never how much.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that a connection may hold before each of its streams must wait for a piece to be taken before it
/// reads the next.
pub const CONNECTION: usize = 512 * 1024;
/// Maximum size in bytes of a piece, and of the allocation behind it.
pub const PIECE: usize = 16 * 1024;

/// Pieces up to this size are copied, so that they do not keep the shared read buffer allocated.
const COPIED: usize = 4 * 1024;
/// Approximate overhead in bytes of keeping a piece.
const OVERHEAD: usize = 256;

/// Memory held by all connections together, in bytes.
#[derive(Debug)]
pub struct BodyMemory {
    held: AtomicUsize,
    limit: usize,
}

/// Memory held by the streams of one connection.
#[derive(Debug)]
pub struct ConnectionMemory {
    stock: Arc<BodyMemory>,
    held: AtomicUsize,
    streams: Mutex<Vec<Weak<StreamMemory>>>,
    /// Notified when a stream must wait because the process-wide limit is reached.
    short: Notify,
}

/// Memory held by one stream.
#[derive(Debug)]
pub struct StreamMemory {
    connection: Arc<ConnectionMemory>,
    answer: Direction,
    upload: Direction,
    /// The number of response bytes taken at the last check, and since when it has been unchanged while bytes
    /// were held.
    seen: Mutex<(u64, Instant)>,
    cut: AtomicBool,
    ended: AtomicBool,
    /// Waker of the stream's task.
    task: AtomicWaker,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Direction {
    held: AtomicUsize,
    /// Total number of bytes taken.
    taken: AtomicU64,
    waker: AtomicWaker,
}

/// Direction of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Response body, to the client.
    Answer,
    /// Request body, to the instance.
    Upload,
}

/// A part of a body. It is accounted for until it is fully taken or dropped.
#[derive(Debug)]
pub struct Piece {
    bytes: Bytes,
    held: Option<Reservation>,
}

#[derive(Debug)]
struct Reservation {
    hold: Arc<StreamMemory>,
    way: Way,
    weight: usize,
}

impl BodyMemory {
    /// Creates the accounting with a limit of `limit` bytes. The limit is checked before a piece is read, so
    /// each worker may exceed it by one piece.
    pub fn new(limit: usize) -> Self {
        BodyMemory { held: AtomicUsize::new(0), limit }
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Whether the limit is reached, so that no stream may read.
    pub fn is_full(&self) -> bool {
        self.held.load(SeqCst) >= self.limit
    }
}

impl ConnectionMemory {
    /// The accounting of a new connection.
    pub fn new(stock: Arc<BodyMemory>) -> Arc<Self> {
        Arc::new(ConnectionMemory {
            stock,
            held: AtomicUsize::new(0),
            streams: Mutex::default(),
            short: Notify::new(),
        })
    }

    /// The accounting of all connections.
    pub fn stock(&self) -> &BodyMemory {
        &self.stock
    }

    /// Registers a new stream.
    pub fn begin(self: &Arc<Self>) -> Arc<StreamMemory> {
        let hold = Arc::new(StreamMemory {
            connection: self.clone(),
            answer: Direction::default(),
            upload: Direction::default(),
            seen: Mutex::new((0, Instant::now())),
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        let mut streams = self.streams();
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(Arc::downgrade(&hold));
        hold
    }

    /// Completes when a stream waits because the process-wide limit is reached.
    pub async fn shortage(&self) {
        self.short.notified().await;
    }

    /// Cuts each stream that holds response bytes of which none were taken for `patience`. With `excused` the
    /// stall clocks restart and no stream is cut, because the connection as a whole is slow. Returns true
    /// when some stalled stream has no task left that could end it; such a stream ends only with the
    /// connection.
    pub fn cut_stalled(&self, now: Instant, patience: Duration, excused: bool) -> bool {
        let mut stuck = false;
        self.each(|stream| {
            if stream.is_stalled(now, patience, excused) {
                stuck |= !stream.cut();
            }
        });
        stuck
    }

    /// Wakes every stream to check for room again.
    pub fn wake(&self) {
        self.each(|stream| {
            stream.answer.waker.wake();
            stream.upload.waker.wake();
        });
    }

    fn each(&self, mut act: impl FnMut(&Arc<StreamMemory>)) {
        // The streams are collected first: a woken or cut task may drop the last handle of a stream, which
        // must not happen under the lock.
        let streams: Vec<_> = self.streams().iter().filter_map(Weak::upgrade).collect();
        streams.iter().for_each(&mut act);
    }

    fn streams(&self) -> MutexGuard<'_, Vec<Weak<StreamMemory>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_full(&self) -> bool {
        self.held.load(SeqCst) >= CONNECTION
    }
}

impl StreamMemory {
    /// Ready when a piece may be read from the body in this direction. Otherwise registers the waker.
    pub fn poll_room(&self, way: Way, cx: &mut Context<'_>) -> Poll<()> {
        if self.has_room(way) {
            return Poll::Ready(());
        }
        self.side(way).waker.register(cx.waker());
        if self.has_room(way) {
            return Poll::Ready(());
        }
        if self.connection.stock.is_full() {
            self.connection.short.notify_one();
        }
        Poll::Pending
    }

    /// Ready when everything handed out in this direction was taken.
    pub fn poll_taken(&self, way: Way, cx: &mut Context<'_>) -> Poll<()> {
        let side = self.side(way);
        side.waker.register(cx.waker());
        if side.held.load(SeqCst) == 0 { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Accounts for a part of the body in this direction.
    pub fn piece(self: &Arc<Self>, way: Way, bytes: Bytes) -> Piece {
        let (bytes, weight) = match bytes.len() {
            length @ ..=COPIED => (Bytes::copy_from_slice(&bytes), length + OVERHEAD),
            // The piece may keep its whole allocation alive, so at least [`PIECE`] bytes are counted.
            length => (bytes, length.max(PIECE)),
        };
        for held in [&self.side(way).held, &self.connection.held, &self.connection.stock.held] {
            held.fetch_add(weight, SeqCst);
        }
        Piece { bytes, held: Some(Reservation { hold: self.clone(), way, weight }) }
    }

    /// Ready when the stream must be aborted. Polled by the stream's task.
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        if self.cut.load(SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Must be called when the stream's task ends: afterwards no task can abort the stream.
    pub fn ended(&self) {
        self.ended.store(true, SeqCst);
    }

    fn has_room(&self, way: Way) -> bool {
        let takes_turns = self.connection.is_full() && self.side(way).held.load(SeqCst) > 0;
        !takes_turns && !self.connection.stock.is_full()
    }

    fn is_stalled(&self, now: Instant, patience: Duration, excused: bool) -> bool {
        let taken = self.answer.taken.load(Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if excused || self.answer.held.load(Relaxed) == 0 || seen.0 != taken {
            *seen = (taken, now);
        }
        now.saturating_duration_since(seen.1) >= patience
    }

    /// Requests the abort of the stream. Returns false when its task has already ended.
    fn cut(&self) -> bool {
        self.cut.store(true, SeqCst);
        self.task.wake();
        !self.ended.load(SeqCst)
    }

    fn side(&self, way: Way) -> &Direction {
        match way {
            Way::Answer => &self.answer,
            Way::Upload => &self.upload,
        }
    }
}

impl Reservation {
    fn taken(&self, bytes: usize) {
        self.hold.side(self.way).taken.fetch_add(bytes as u64, Relaxed);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (side, connection) = (self.hold.side(self.way), &self.hold.connection);
        connection.stock.held.fetch_sub(self.weight, SeqCst);
        let before = connection.held.fetch_sub(self.weight, SeqCst);
        if side.held.fetch_sub(self.weight, SeqCst) == self.weight {
            side.waker.wake();
        }
        if before >= CONNECTION && before - self.weight < CONNECTION {
            connection.wake();
        }
    }
}

impl From<Bytes> for Piece {
    /// Creates a piece without accounting.
    fn from(bytes: Bytes) -> Self {
        Piece { bytes, held: None }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(held) = &self.held {
            held.taken(count);
            if self.bytes.is_empty() {
                self.held = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn connection(limit: usize) -> Arc<ConnectionMemory> {
        ConnectionMemory::new(Arc::new(BodyMemory::new(limit)))
    }

    fn has_room(hold: &StreamMemory) -> bool {
        hold.poll_room(Way::Answer, &mut Context::from_waker(Waker::noop())).is_ready()
    }

    fn large(hold: &Arc<StreamMemory>) -> Piece {
        hold.piece(Way::Answer, Bytes::from(vec![0; PIECE]))
    }

    #[test]
    fn a_connection_that_holds_much_takes_piece_by_piece_of_each_stream() {
        let connection = connection(usize::MAX);
        let (greedy, modest) = (connection.begin(), connection.begin());
        let mut pieces: Vec<_> = (0..CONNECTION / PIECE).map(|_| large(&greedy)).collect();
        assert!(!has_room(&greedy));
        assert!(has_room(&modest));
        let other = large(&modest);
        assert!(!has_room(&modest));
        pieces.truncate(1);
        assert!(has_room(&greedy) && has_room(&modest));
        drop(other);
    }

    #[test]
    fn nobody_takes_more_while_the_process_holds_all_that_it_may() {
        let stock = Arc::new(BodyMemory::new(PIECE));
        let (one, other) =
            (ConnectionMemory::new(stock.clone()).begin(), ConnectionMemory::new(stock.clone()).begin());
        let piece = large(&one);
        assert!(stock.is_full() && !has_room(&other));
        drop(piece);
        assert_eq!(stock.held(), 0);
        assert!(has_room(&other));
    }

    #[test]
    fn the_directions_of_a_stream_do_not_wait_for_each_other() {
        let connection = connection(usize::MAX);
        let (stream, filler) = (connection.begin(), connection.begin());
        let _full: Vec<_> = (0..CONNECTION / PIECE).map(|_| large(&filler)).collect();
        let _upload = stream.piece(Way::Upload, Bytes::from(vec![0; PIECE]));
        assert!(has_room(&stream));
    }

    #[test]
    fn a_small_piece_does_not_keep_what_it_came_in() {
        let whole = Bytes::from(vec![0; PIECE]);
        let piece = connection(usize::MAX).begin().piece(Way::Answer, whole.slice(..10));
        assert!(whole.is_unique());
        assert_eq!(piece.remaining(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_which_nothing_is_taken_for_long_is_ended() {
        let connection = connection(usize::MAX);
        let (slow, stalled, idle) = (connection.begin(), connection.begin(), connection.begin());
        let (mut slow_piece, _stalled_piece) = (large(&slow), large(&stalled));
        let is_cut = |hold: &StreamMemory| hold.poll_cut(&mut Context::from_waker(Waker::noop())).is_ready();
        for hold in [&slow, &stalled, &idle] {
            assert!(!is_cut(hold));
        }
        let patience = Duration::from_secs(10);
        for _ in 0..6 {
            tokio::time::advance(patience / 5).await;
            slow_piece.advance(1);
            assert!(!connection.cut_stalled(Instant::now(), patience, false));
        }
        assert_eq!([&slow, &stalled, &idle].map(|hold| is_cut(hold)), [false, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_connection_excuses_its_streams() {
        let connection = connection(usize::MAX);
        let hold = connection.begin();
        let _piece = large(&hold);
        let patience = Duration::from_secs(10);
        for _ in 0..5 {
            tokio::time::advance(patience).await;
            assert!(!connection.cut_stalled(Instant::now(), patience, true));
        }
        assert!(hold.poll_cut(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    proptest! {
        #[test]
        fn all_that_was_counted_is_given_back(
            parts in vec((0..3_usize, 1..40_000_usize, 0..40_000_usize, any::<bool>()), 0..40)
        ) {
            let connection = connection(usize::MAX);
            let streams = [connection.begin(), connection.begin(), connection.begin()];
            let mut kept = Vec::new();
            for (stream, length, taken, upload) in parts {
                let way = if upload { Way::Upload } else { Way::Answer };
                let mut piece = streams[stream].piece(way, Bytes::from(vec![0; length]));
                prop_assert!(connection.stock().held() >= length);
                piece.advance(taken.min(length));
                kept.push(piece);
            }
            drop(kept);
            prop_assert_eq!(connection.stock().held(), 0);
            prop_assert_eq!(connection.held.load(SeqCst), 0);
            for stream in streams {
                prop_assert_eq!((stream.answer.held.load(SeqCst), stream.upload.held.load(SeqCst)), (0, 0));
            }
        }
    }
}
