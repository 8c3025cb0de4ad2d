//! The client socket as hyper uses it for HTTP/2. Incoming frames are inspected to detect request heads that
//! do not end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::Instant;

use super::frames::Frames;
use super::io::ClientIo;
use super::read_buffer;

/// A client socket.
#[derive(Debug)]
pub(super) struct Http2Io {
    io: ClientIo,
    frames: Frames,
    /// The head that was incomplete after the last read.
    open_head: Option<u64>,
}

impl Http2Io {
    pub(super) fn new(io: ClientIo) -> Self {
        Http2Io { io, frames: Frames::new(), open_head: None }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
        piece: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let room = piece.len().min(buf.remaining());
        let mut part = ReadBuf::new(piece.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.io).poll_read(cx, part.unfilled()))?;
        self.frames.read(part.filled());
        buf.put_slice(part.filled());
        let open_head = self.frames.open_head();
        if open_head != self.open_head {
            self.open_head = open_head;
            self.io.activity.set_head_since(open_head.map(|_| Instant::now()));
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for Http2Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        read_buffer::with(|piece| this.poll_piece(cx, buf, piece))
    }
}

impl Write for Http2Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
