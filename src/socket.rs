//! A TCP socket with hyper's I/O traits.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::net::TcpStream;

use crate::body_memory::PIECE;

/// Maximum number of bytes per read. hyper doubles its read buffer when a read fills it. One byte less than
/// [`PIECE`] keeps the buffers, and the body pieces cut from them, at [`PIECE`].
const READ: u64 = PIECE as u64 - 1;
/// Maximum number of body bytes that hyper buffers per direction of an HTTP/1 connection, plus one piece.
pub const BUFFER: usize = 64 * 1024;

/// Vectored writes of up to this many bytes are copied into one buffer first. A plain send is cheaper for the
/// kernel than a vectored one, and most heads with small bodies fit.
const GATHER: usize = 2048;

/// A connected socket, optionally with an inspector of the bytes read.
#[derive(Debug)]
pub struct Socket<I = ()>(TokioIo<BoundedReads<I>>);

/// Inspects bytes read from a socket before hyper receives them.
pub trait Inspect: Unpin {
    /// Called with the next bytes. An error becomes the error of the read.
    fn inspect(&mut self, bytes: &[u8]) -> io::Result<()>;
}

impl Inspect for () {
    fn inspect(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    pub fn new(stream: TcpStream) -> Self {
        Socket::inspected(stream, ())
    }
}

impl<I> Socket<I> {
    /// A socket whose incoming bytes pass `inspector`.
    pub fn inspected(stream: TcpStream, inspector: I) -> Self {
        Socket(TokioIo::new(BoundedReads { stream: stream.take(READ), inspector }))
    }

    /// The pending socket error (`SO_ERROR`), for example a reset, without reading or writing.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.inner().stream.get_ref().take_error()
    }

    pub fn into_inner(self) -> TcpStream {
        self.0.into_inner().stream.into_inner()
    }
}

/// A stream whose reads return at most [`READ`] bytes.
#[derive(Debug)]
struct BoundedReads<I> {
    stream: Take<TcpStream>,
    inspector: I,
}

impl<I: Inspect> AsyncRead for BoundedReads<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if buf.remaining() as u64 <= READ {
            ready!(Pin::new(this.stream.get_mut()).poll_read(cx, buf))?;
        } else {
            this.stream.set_limit(READ);
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        }
        Poll::Ready(this.inspector.inspect(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl<I: Unpin> AsyncWrite for BoundedReads<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_shutdown(cx)
    }
}

impl<I: Inspect> Read for Socket<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<I: Unpin> Write for Socket<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = Pin::new(&mut self.get_mut().0);
        if let [one] = slices {
            return inner.poll_write(cx, one);
        }
        let mut gathered = [0; GATHER];
        match gather(&mut gathered, slices) {
            Some(bytes) => inner.poll_write(cx, bytes),
            None => inner.poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

/// Copies all `slices` into `space`. Returns `None` when they do not fit.
fn gather<'a>(space: &'a mut [u8; GATHER], slices: &[IoSlice<'_>]) -> Option<&'a [u8]> {
    let mut used = 0;
    for slice in slices {
        space.get_mut(used..used + slice.len())?.copy_from_slice(slice);
        used += slice.len();
    }
    space.get(..used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_gathered_in_order_and_what_does_not_is_left_alone() {
        let mut space = [0; GATHER];
        let parts = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cd")];
        assert_eq!(gather(&mut space, &parts), Some(&b"abcd"[..]));
        let full = vec![7; GATHER];
        assert_eq!(gather(&mut space, &[IoSlice::new(&full)]).map(<[u8]>::len), Some(GATHER));
        assert_eq!(gather(&mut space, &[IoSlice::new(&full), IoSlice::new(b"x")]), None);
    }
}
