//! A socket whose failed writes do not hide a response that can still be read.
//!
//! A server may reject an upload and close the connection without reading all of it. The system then resets
//! the connection as soon as more data arrives. The response sent before must still be read although writing
//! fails (RFC 9112 section 9.5).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::net::TcpStream;

use crate::socket::{Inspect, Socket};

/// A socket to a server that may respond before it has read the whole request. After the peer has refused a
/// write, nothing more is written. The write error is reported only when nothing is left to be read.
#[derive(Debug)]
pub(super) struct ReadAfterRefusal<I = ()> {
    socket: Socket<I>,
    refusal: Option<Refusal>,
}

/// State after the peer has refused a write.
#[derive(Debug)]
enum Refusal {
    /// Received data may be left to read. The waker is that of the pending write, to be woken when reading is
    /// over.
    ReadOn(io::ErrorKind, Option<Waker>),
    /// All received data has been read.
    Final(io::ErrorKind),
}

impl<I> ReadAfterRefusal<I> {
    pub(super) fn new(socket: Socket<I>) -> Self {
        ReadAfterRefusal { socket, refusal: None }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.socket.into_inner()
    }

    /// The result of a write after an earlier one was refused; `None` if none was.
    fn poll_refused(&mut self, cx: &Context<'_>) -> Option<Poll<io::Result<usize>>> {
        match self.refusal.as_mut()? {
            Refusal::ReadOn(_, waiting) => {
                *waiting = Some(cx.waker().clone());
                Some(Poll::Pending)
            }
            Refusal::Final(kind) => Some(Poll::Ready(Err((*kind).into()))),
        }
    }

    fn written(&mut self, result: Poll<io::Result<usize>>, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(error)) if is_refusal(error.kind()) => {
                self.refusal = Some(Refusal::ReadOn(error.kind(), Some(cx.waker().clone())));
                Poll::Pending
            }
            result => result,
        }
    }

    /// Called when reading after a refused write ends. If the connection was reset, an orderly end is
    /// reported as a reset, because a part of the response may have been lost.
    fn end(&mut self, result: io::Result<()>) -> io::Result<()> {
        let Some(Refusal::ReadOn(kind, waiting)) = self.refusal.take() else { return result };
        self.refusal = Some(Refusal::Final(kind));
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        if kind == io::ErrorKind::ConnectionReset { result.and(Err(kind.into())) } else { result }
    }
}

/// Whether the peer accepts no more data. Data it sent before can still be read.
fn is_refusal(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl<I: Inspect> Read for ReadAfterRefusal<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refusal.is_none() {
            return Pin::new(&mut this.socket).poll_read(cx, buf);
        }
        this.read_on(cx, buf)
    }
}

impl<I: Inspect> ReadAfterRefusal<I> {
    /// Reads after a refused write. It reads into a buffer of its own, to detect the end.
    fn read_on(&mut self, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut piece = [0; 4096];
        let room = piece.len().min(buf.remaining());
        let mut part = ReadBuf::new(piece.get_mut(..room).unwrap_or_default());
        let result = std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, part.unfilled()));
        if part.filled().is_empty() || result.is_err() {
            return Poll::Ready(self.end(result));
        }
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<I: Unpin> Write for ReadAfterRefusal<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(refused) = this.poll_refused(cx) {
            return refused;
        }
        let result = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.written(result, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(refused) = this.poll_refused(cx) {
            return refused;
        }
        let result = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// The client side of a connection on which a write has been refused. Before that the peer has sent `no`.
    async fn refused(orderly: bool) -> ReadAfterRefusal {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut theirs = listener.accept().await.unwrap().0;
        ours.write_all(b"ab").await.unwrap();
        theirs.write_all(b"no").await.unwrap();
        // If the peer closes with unread data, the system resets the connection at once.
        let all = if orderly { 2 } else { 1 };
        theirs.read_exact(&mut [0; 2][..all]).await.unwrap();
        drop(theirs);
        let mut socket = ReadAfterRefusal::new(Socket::new(ours));
        while socket.refusal.is_none() {
            poll_fn(|cx| {
                let result = Pin::new(&mut socket).poll_write(cx, b"more");
                if result.is_pending() && socket.refusal.is_none() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
        }
        socket
    }

    async fn read(socket: &mut ReadAfterRefusal) -> io::Result<Vec<u8>> {
        let mut space = [0; 64];
        let mut buf = ReadBuf::new(&mut space);
        poll_fn(|cx| Pin::new(&mut *socket).poll_read(cx, buf.unfilled())).await?;
        Ok(buf.filled().to_vec())
    }

    async fn write(socket: &mut ReadAfterRefusal) -> io::Result<usize> {
        poll_fn(|cx| Pin::new(&mut *socket).poll_write(cx, b"more")).await
    }

    #[tokio::test]
    async fn what_came_before_a_reset_is_read_and_then_the_reset() {
        let mut socket = refused(false).await;
        assert_eq!(read(&mut socket).await.unwrap(), b"no");
        assert_eq!(read(&mut socket).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(write(&mut socket).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_orderly_end_stays_one_and_then_writes_fail() {
        let mut socket = refused(true).await;
        assert_eq!(read(&mut socket).await.unwrap(), b"no");
        assert_eq!(read(&mut socket).await.unwrap(), b"");
        assert_eq!(write(&mut socket).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn who_waits_to_write_is_woken_when_the_reading_is_over() {
        let mut socket = refused(true).await;
        let socket = std::sync::Mutex::new(&mut socket);
        let writing = poll_fn(|cx| Pin::new(&mut **socket.lock().unwrap()).poll_write(cx, b"more"));
        let reading = async {
            tokio::task::yield_now().await;
            for _ in 0..2 {
                let mut space = [0; 64];
                let mut buf = ReadBuf::new(&mut space);
                poll_fn(|cx| Pin::new(&mut **socket.lock().unwrap()).poll_read(cx, buf.unfilled()))
                    .await
                    .unwrap();
            }
        };
        let (written, ()) = tokio::join!(writing, reading);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
