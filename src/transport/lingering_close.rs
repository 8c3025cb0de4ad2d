//! A socket that counts against the connection limit until the instance has closed its side too.
//!
//! If a closed connection freed its permit at once, the next one could exceed the limit of an instance that
//! has not noticed the close yet. Many servers notice it only when they send the response: until then they
//! process an aborted request, which also keeps its slot in use.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::connection_limit::ConnectionPermit;
use super::head_lines::{Expectation, HeadLines};
use super::slot_hold::{SlotHold, SlotShare};
use super::upload::ReadAfterRefusal;
use crate::socket::{Inspect, Socket};

/// How long an instance may take to notice a close.
const NOTICE: Duration = Duration::from_millis(250);

/// A connected socket with its permit.
#[derive(Debug)]
pub(super) struct CountedSocket {
    /// `socket` and `permit` are `Some` until the drop.
    socket: Option<ReadAfterRefusal<Inspector>>,
    permit: Option<ConnectionPermit>,
    link: Arc<SlotHold>,
    abandoned: Duration,
}

/// Inspects received bytes before hyper parses them.
#[derive(Debug)]
struct Inspector {
    link: Arc<SlotHold>,
    lines: HeadLines,
}

impl Inspect for Inspector {
    fn inspect(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !bytes.is_empty() {
            self.link.hear();
        }
        self.lines.inspect(bytes)
    }
}

impl CountedSocket {
    /// `expected` is set when the next bytes are a response head. `abandoned` is how long an instance is
    /// assumed to process an aborted request at most.
    pub(super) fn new(
        stream: TcpStream,
        permit: ConnectionPermit,
        abandoned: Duration,
        link: Arc<SlotHold>,
        expected: Arc<Expectation>,
    ) -> Self {
        let inspector = Inspector { link: link.clone(), lines: HeadLines::new(expected) };
        let socket = ReadAfterRefusal::new(Socket::inspected(stream, inspector));
        CountedSocket { socket: Some(socket), permit: Some(permit), link, abandoned }
    }

    fn socket(self: Pin<&mut Self>) -> io::Result<Pin<&mut ReadAfterRefusal<Inspector>>> {
        self.get_mut().socket.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for CountedSocket {
    fn drop(&mut self) {
        if let (Some(socket), Some(permit)) = (self.socket.take(), self.permit.take())
            && let claim = self.link.take_claim()
            && (permit.is_counted() || claim.is_some())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(linger(socket.into_inner(), permit, claim, self.abandoned));
        }
    }
}

/// Shuts down the sending side and waits until the instance closes its side. `claim` is released when the
/// instance closes or responds, or after `abandoned`.
async fn linger(
    mut stream: TcpStream,
    permit: ConnectionPermit,
    claim: Option<SlotShare>,
    abandoned: Duration,
) {
    if let Some(claim) = claim {
        let over = async {
            stream.shutdown().await?;
            stream.peek(&mut [0]).await
        };
        let _ = timeout(abandoned, over).await;
        drop(claim);
    }
    let closed = async {
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<(), io::Error>(())
    };
    // An instance that does not notice the close, or continues to send, is not waited for any longer.
    let _ = timeout(NOTICE, closed).await;
    drop((stream, permit));
}

impl Read for CountedSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_read(cx, buf)
    }
}

impl Write for CountedSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time::sleep;

    use super::*;
    use crate::transport::ConnectionLimiter;

    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn there_is_room_for_another_only_when_the_instance_has_closed_too() {
        let line = ConnectionLimiter::default().to(([127, 0, 0, 1], 1).into());
        let (ours, mut theirs) = connected().await;
        drop(CountedSocket::new(ours, line.try_acquire(1).unwrap(), NOTICE, Arc::default(), Arc::default()));
        // The close has arrived, but the peer has not closed its side.
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        assert!(line.try_acquire(1).is_none());
        drop(theirs);
        drop(line.acquire(1).await);
    }

    #[tokio::test]
    async fn an_instance_that_does_not_notice_is_not_waited_for_long() {
        let line = ConnectionLimiter::default().to(([127, 0, 0, 1], 1).into());
        let (ours, theirs) = connected().await;
        drop(CountedSocket::new(ours, line.try_acquire(1).unwrap(), NOTICE, Arc::default(), Arc::default()));
        assert!(timeout(Duration::from_secs(60), line.acquire(1)).await.is_ok());
        drop(theirs);
    }

    #[tokio::test]
    async fn who_is_not_counted_is_closed_at_once() {
        let line = ConnectionLimiter::default().to(([127, 0, 0, 1], 1).into());
        let (ours, mut theirs) = connected().await;
        drop(CountedSocket::new(ours, line.acquire_uncounted(), NOTICE, Arc::default(), Arc::default()));
        assert!(line.try_acquire(1).is_some());
        assert_eq!(theirs.read(&mut [0]).await.unwrap(), 0);
        sleep(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn many_that_wait_for_room_all_get_it() {
        let line = ConnectionLimiter::default().to(([127, 0, 0, 1], 1).into());
        let permits: Vec<_> = (0..8).map(|_| line.try_acquire(8).unwrap()).collect();
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let line = line.clone();
                tokio::spawn(async move { line.acquire(8).await })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(permits);
        let mut got = Vec::new();
        for waiter in waiting {
            got.push(timeout(Duration::from_secs(60), waiter).await.unwrap().unwrap());
        }
        assert!(line.try_acquire(8).is_none());
    }
}
