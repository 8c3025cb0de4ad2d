//! An upgraded connection, with bytes copied in both directions until one side ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

/// The upstream's half of an upgraded connection, before it is joined with the client's half.
pub struct Tunnel {
    upstream: TokioIo<Upgraded>,
    idle: Duration,
}

/// The result of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelReport {
    /// Bytes received from the client.
    pub received: u64,
    /// Bytes sent to the client.
    pub sent: u64,
}

impl Tunnel {
    /// Wraps an upgraded connection. The tunnel ends when no byte passes for `idle`. This is checked in steps
    /// of that length, so it ends after at most twice as long.
    pub fn new(upstream: Upgraded, idle: Duration) -> Self {
        Tunnel { upstream: TokioIo::new(upstream), idle }
    }

    /// Copies in both directions until both sides have finished, one side fails, the idle timeout passes, or
    /// `closed` completes.
    pub async fn run<C>(mut self, client: C, closed: impl Future<Output = ()>) -> TunnelReport
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let counts = Arc::new(Counts::default());
        let mut client = Counted { inner: client, counts: counts.clone() };
        let silence = async {
            let mut last = counts.report();
            loop {
                tokio::time::sleep(self.idle).await;
                let now = counts.report();
                if now == last {
                    break;
                }
                last = now;
            }
        };
        tokio::select! {
            // An I/O error ends the tunnel normally: the bytes copied until then have been counted.
            _ = copy_bidirectional(&mut client, &mut self.upstream) => {}
            () = silence => {}
            () = closed => {}
        }
        counts.report()
    }
}

#[derive(Default)]
struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Counts {
    fn report(&self) -> TunnelReport {
        TunnelReport { received: self.received.load(Relaxed), sent: self.sent.load(Relaxed) }
    }
}

struct Counted<C> {
    inner: C,
    counts: Arc<Counts>,
}

impl<C: AsyncRead + Unpin> AsyncRead for Counted<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.counts.received.fetch_add((buf.filled().len() - before) as u64, Relaxed);
        result
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Counted<C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = result {
            this.counts.sent.fetch_add(written as u64, Relaxed);
        }
        result
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
