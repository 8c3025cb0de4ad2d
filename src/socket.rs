//! A TCP socket as hyper wants it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Vectored writes of up to this many bytes are gathered first: a plain send costs the kernel less than
/// a vector, and most heads with their small bodies fit.
const GATHER: usize = 2048;

/// A connected socket, or something around one.
#[derive(Debug)]
pub struct Socket<S = TcpStream>(TokioIo<S>);

impl<S> Socket<S> {
    pub fn new(stream: S) -> Self {
        Socket(TokioIo::new(stream))
    }

    pub fn into_inner(self) -> S {
        self.0.into_inner()
    }
}

impl<S: AsyncRead + Unpin> Read for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> Write for Socket<S> {
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

/// All `slices` in one piece, when they fit.
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
