//! What is known of the exchange on a connection where its bytes pass.
//!
//! hyper says that a connection has ended, but not whether a part of an answer had come before. What had not begun to be
//! answered on a connection that was used before may have crossed with the instance's decision to close it.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is held as long as the instance is, or may be, at work on a request; dropping the last clone lets go of it.
pub type Claim = Arc<dyn fmt::Debug + Send + Sync>;

/// What a connection knows in common with its socket, which hyper has.
#[derive(Debug, Default)]
pub(super) struct Link {
    heard: AtomicBool,
    claim: Mutex<Option<Claim>>,
}

impl Link {
    /// A request is about to be sent, which `claim` is held for.
    pub(super) fn begin(&self, claim: Option<Claim>) {
        self.heard.store(false, Relaxed);
        if claim.is_some() {
            *self.held() = claim;
        }
    }

    /// Whether a byte has come since.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// What is still held when the connection ends, or when the answer has.
    pub(super) fn take_claim(&self) -> Option<Claim> {
        self.held().take()
    }

    fn held(&self) -> MutexGuard<'_, Option<Claim>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that notes when a byte comes.
#[derive(Debug)]
pub(super) struct Ear {
    stream: TcpStream,
    link: Arc<Link>,
}

impl Ear {
    pub(super) fn new(stream: TcpStream, link: Arc<Link>) -> Self {
        Ear { stream, link }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Ear {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (this, before) = (self.get_mut(), buf.filled().len());
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            this.link.heard.store(true, Relaxed);
        }
        result
    }
}

impl AsyncWrite for Ear {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
