//! The client socket as hyper uses it, and the connection state that the connection timers read.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::Version;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::reader::Follows;
use crate::proxy::Upgrade;
use crate::socket::Socket;

/// Activity of one connection. It is written only by tasks of one worker, which run on one thread. The
/// atomics are needed for sharing, not for concurrency; loads and stores are therefore sufficient instead of
/// read-modify-write operations.
#[derive(Debug, Default)]
pub(super) struct ConnectionActivity {
    /// Requests whose responses are not finished.
    active: AtomicUsize,
    /// Total number of requests.
    requests: AtomicU64,
    /// Changes whenever bytes are read or written.
    progress: AtomicU64,
    /// Changes whenever bytes are written.
    written: AtomicU64,
    /// Whether the last write found the socket buffer full.
    write_blocked: AtomicBool,
    /// Whether the last request was HTTP/1.0, where closing the connection may mark the end of a response.
    http10: AtomicBool,
    /// Start time of the incomplete request head, for HTTP/2.
    head_since: Mutex<Option<Instant>>,
    /// What follows the last head according to hyper; [`NOTHING_NEW`] after it was taken.
    follows: Follow,
    /// The trailer section of the response being written. hyper itself would write only announced trailers.
    has_trailers: AtomicBool,
    trailers: Mutex<Vec<u8>>,
    /// Whether hyper's write buffer is empty since its last flush.
    drained: AtomicBool,
    /// Waker of the task that waits until no request is in flight.
    is_awaited: AtomicBool,
    awaiting: Mutex<Option<Waker>>,
    /// Set when a response switched protocols.
    upgrade: Mutex<Option<Upgrade>>,
}

/// A slot that passes one [`Follows`] from the service to the reader.
#[derive(Debug)]
struct Follow(AtomicU64);

/// Markers. hyper never reports these values as a body length.
const NOTHING_NEW: u64 = u64::MAX;
const CHUNKS: u64 = u64::MAX - 1;
const TUNNEL: u64 = u64::MAX - 2;

impl Default for Follow {
    fn default() -> Self {
        Follow(AtomicU64::new(NOTHING_NEW))
    }
}

impl Follow {
    fn put(&self, follows: Follows) {
        let number = match follows {
            Follows::Length(length) => length,
            Follows::Chunks => CHUNKS,
            Follows::Tunnel => TUNNEL,
        };
        self.0.store(number, Relaxed);
    }

    fn take(&self) -> Option<Follows> {
        let number = self.0.load(Relaxed);
        if number == NOTHING_NEW {
            return None;
        }
        self.0.store(NOTHING_NEW, Relaxed);
        Some(match number {
            CHUNKS => Follows::Chunks,
            TUNNEL => Follows::Tunnel,
            length => Follows::Length(length),
        })
    }
}

impl ConnectionActivity {
    pub(super) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// A counter that changes whenever bytes are read or written.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    /// A counter that changes whenever bytes are written.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    pub(super) fn made_progress(&self) {
        self.progress.store(self.progress() + 1, Relaxed);
    }

    pub(super) fn write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    pub(super) fn is_http10(&self) -> bool {
        self.http10.load(Relaxed)
    }

    /// Counts a request as in flight until the returned value is dropped.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> InFlight {
        self.http10.store(version == Version::HTTP_10, Relaxed);
        self.active.store(self.active() + 1, Relaxed);
        self.requests.store(self.requests() + 1, Relaxed);
        InFlight { activity: self.clone() }
    }

    /// Sets the start time of the incomplete head; `None` when there is none.
    pub(super) fn set_head_since(&self, since: Option<Instant>) {
        *self.head_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    pub(super) fn head_since(&self) -> Option<Instant> {
        *self.head_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores what follows a head according to hyper.
    pub(super) fn put_follows(&self, follows: Follows) {
        self.follows.put(follows);
    }

    pub(super) fn take_follows(&self) -> Option<Follows> {
        self.follows.take()
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    pub(super) fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Relaxed);
    }

    /// Stores the trailer section of the response. The next thing that hyper writes must be the end of its
    /// chunked body.
    pub(super) fn put_trailers(&self, section: Vec<u8>) {
        *self.trailers.lock().unwrap_or_else(PoisonError::into_inner) = section;
        self.has_trailers.store(true, Relaxed);
    }

    pub(super) fn has_trailers(&self) -> bool {
        self.has_trailers.load(Relaxed)
    }

    pub(super) fn take_trailers(&self) -> Vec<u8> {
        self.has_trailers.store(false, Relaxed);
        std::mem::take(&mut *self.trailers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ready when no request is in flight. Keeps the waker of the last caller only.
    pub(super) fn poll_rest(&self, cx: &Context<'_>) -> Poll<()> {
        if self.active() == 0 {
            return Poll::Ready(());
        }
        *self.awaiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.is_awaited.store(true, Relaxed);
        Poll::Pending
    }

    /// Wakes the task that waits for the end of all requests.
    fn rest(&self) {
        if self.is_awaited.swap(false, Relaxed)
            && let Some(waker) = self.awaiting.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            waker.wake();
        }
    }

    /// Whether a response switched protocols.
    pub(super) fn is_switching(&self) -> bool {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn set_upgrade(&self, upgrade: Upgrade) {
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }

    pub(super) fn take_upgrade(&self) -> Option<Upgrade> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A request in flight. It is dropped at the end of its response.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<ConnectionActivity>,
}

impl InFlight {
    /// See [`ConnectionActivity::put_trailers`].
    pub(super) fn put_trailers(&self, section: Vec<u8>) {
        self.activity.put_trailers(section);
    }

    /// Whether the last write found the client's socket buffer full.
    pub(super) fn is_write_blocked(&self) -> bool {
        self.activity.write_blocked()
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.activity.active.store(self.activity.active().saturating_sub(1), Relaxed);
        self.activity.rest();
    }
}

/// A client socket. Reads return `ahead` first: bytes that were read from the socket earlier.
#[derive(Debug)]
pub(super) struct ClientIo {
    pub(super) socket: Socket,
    pub(super) ahead: Bytes,
    pub(super) activity: Arc<ConnectionActivity>,
}

impl ClientIo {
    pub(super) fn new(socket: Socket, ahead: Bytes) -> Self {
        ClientIo { socket, ahead, activity: Arc::default() }
    }

    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(_)) => {
                self.activity.made_progress();
                self.activity.written.store(self.activity.written() + 1, Relaxed);
                self.activity.write_blocked.store(false, Relaxed);
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.write_blocked.store(true, Relaxed),
        }
    }
}

impl Read for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            let result = Pin::new(&mut this.socket).poll_read(cx, buf);
            if result.is_ready() {
                this.activity.made_progress();
            }
            return result;
        }
        let part = this.ahead.split_to(this.ahead.len().min(buf.remaining()));
        buf.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl Write for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Write::poll_write(Pin::new(&mut this.socket), cx, bytes);
        this.note_write(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Write::poll_write_vectored(Pin::new(&mut this.socket), cx, slices);
        this.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_flush(Pin::new(&mut self.get_mut().socket), cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Write::poll_shutdown(Pin::new(&mut self.get_mut().socket), cx)
    }
}

/// A client socket after an upgrade, with tokio's I/O traits for plain copying.
pub(super) struct UpgradedIo {
    pub(super) stream: TcpStream,
    pub(super) ahead: Bytes,
}

impl AsyncRead for UpgradedIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let length = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead.copy_to_bytes(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpgradedIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
