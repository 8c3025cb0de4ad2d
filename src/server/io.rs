//! The client's socket as hyper sees it, with what its keeper needs to know about it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Version;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::proxy::Upgrade;
use crate::socket::Socket;

/// What is going on in a connection. Written by tasks of one worker only, which take turns on its thread; the
/// atomics are for sharing, not for concurrency, hence loads and stores instead of read-modify-write.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose answers are not finished.
    active: AtomicUsize,
    /// Requests ever begun.
    requests: AtomicU64,
    /// Changes whenever bytes are read or written.
    progress: AtomicU64,
    /// The last write found the socket full.
    write_blocked: AtomicBool,
    /// The last request came as HTTP/1.0, where the end of an answer may be the end of the connection.
    http10: AtomicBool,
    /// How often the body of an answer was asked for more.
    polls: AtomicU64,
    /// Answers that have handed out data and were not asked for more since.
    handed_out: AtomicUsize,
    /// Set when an answer agreed on another protocol.
    upgrade: Mutex<Option<Upgrade>>,
}

impl Activity {
    pub(super) fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// A number that changes whenever bytes are read or written.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Relaxed)
    }

    fn made_progress(&self) {
        self.progress.store(self.progress() + 1, Relaxed);
    }

    pub(super) fn write_blocked(&self) -> bool {
        self.write_blocked.load(Relaxed)
    }

    pub(super) fn is_http10(&self) -> bool {
        self.http10.load(Relaxed)
    }

    /// How often answers were asked for more, if one waits to be asked.
    pub(super) fn polls_awaited(&self) -> Option<u64> {
        (self.handed_out.load(Relaxed) > 0).then(|| self.polls.load(Relaxed))
    }

    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Running {
        self.http10.store(version == Version::HTTP_10, Relaxed);
        self.active.store(self.active() + 1, Relaxed);
        self.requests.store(self.requests() + 1, Relaxed);
        Running { activity: self.clone(), handed_out: false }
    }

    pub(super) fn set_upgrade(&self, upgrade: Upgrade) {
        *self.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    }

    pub(super) fn take_upgrade(&self) -> Option<Upgrade> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// One request being served; dropped with the end of its answer.
#[derive(Debug)]
pub(super) struct Running {
    activity: Arc<Activity>,
    handed_out: bool,
}

impl Running {
    /// Whether what was written last did not fit into the client's socket.
    pub(super) fn is_write_blocked(&self) -> bool {
        self.activity.write_blocked()
    }

    /// The body of the answer was asked for more; whether it had some.
    pub(super) fn polled(&mut self, had_some: bool) {
        let activity = &self.activity;
        activity.polls.store(activity.polls.load(Relaxed) + 1, Relaxed);
        if had_some != self.handed_out {
            self.handed_out = had_some;
            let waiting = activity.handed_out.load(Relaxed);
            let waiting = if had_some { waiting + 1 } else { waiting.saturating_sub(1) };
            activity.handed_out.store(waiting, Relaxed);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.polled(false);
        self.activity.active.store(self.activity.active().saturating_sub(1), Relaxed);
    }
}

/// A client's socket: first yields `ahead`, bytes that were read from it before.
#[derive(Debug)]
pub(super) struct ClientIo {
    pub(super) socket: Socket,
    pub(super) ahead: Bytes,
    pub(super) activity: Arc<Activity>,
}

impl ClientIo {
    pub(super) fn new(socket: Socket, ahead: Bytes) -> Self {
        ClientIo { socket, ahead, activity: Arc::default() }
    }

    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(_)) => {
                self.activity.made_progress();
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

/// A client's socket after an upgrade: the same, for plain copying.
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
