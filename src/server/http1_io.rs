//! The client socket as hyper uses it for HTTP/1.1. Incoming bytes pass a [`RequestReader`]. Interim
//! responses, which hyper cannot write, are inserted between hyper's writes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::Instant;

use super::io::ClientIo;
use super::read_buffer;
use super::reader::{RequestReader, Violation};
use crate::proxy::Client;

/// A client socket. Bytes in `io.ahead` have not passed the reader yet.
#[derive(Debug)]
pub(super) struct Http1Io {
    pub(super) io: ClientIo,
    client: Arc<Client>,
    reader: RequestReader,
    violation: Option<Violation>,
    half_closed: Option<HalfClosed>,
    /// How long to wait for a client that has half-closed the connection and may be gone.
    patience: Duration,
    /// Unwritten bytes of interim responses.
    interim: Bytes,
    /// Unwritten bytes that replace [`END_OF_CHUNKS`].
    end: Bytes,
}

/// The end of a chunked body that hyper writes after the line of the last chunk.
const END_OF_CHUNKS: &[u8] = b"\r\n";

/// The client has sent a FIN. It either has no more requests or has disconnected.
#[derive(Debug)]
struct HalfClosed {
    since: Instant,
    /// Whether anything was written since. A client that is gone answers a write with a reset, so no timeout
    /// is needed.
    written: bool,
}

impl Http1Io {
    pub(super) fn new(io: ClientIo, client: Arc<Client>, patience: Duration) -> Self {
        Http1Io {
            io,
            client,
            reader: RequestReader::new(),
            violation: None,
            half_closed: None,
            patience,
            interim: Bytes::new(),
            end: Bytes::new(),
        }
    }

    /// The protocol violation by the client that ended reading, if there was one.
    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation
    }

    fn poll_request(&mut self, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if let Some(violation) = self.violation {
            return self.poll_refused(violation, cx);
        }
        if let Err(violation) = self.go_on() {
            return self.refuse(violation, cx);
        }
        if self.reader.is_undecided() {
            ready!(self.poll_decision(cx))?;
        }
        if self.io.ahead.is_empty() {
            if self.half_closed.is_some() {
                return self.poll_half_closed(cx);
            }
            return read_buffer::with(|piece| self.poll_socket(cx, buf, piece));
        }
        match self.reader.read(&self.io.ahead, &mut buf) {
            Ok(used) => {
                self.io.ahead.advance(used);
                Poll::Ready(Ok(()))
            }
            Err(violation) => self.refuse(violation, cx),
        }
    }

    /// Passes to the reader what follows the head that hyper has parsed.
    fn go_on(&mut self) -> Result<(), Violation> {
        match self.io.activity.take_follows() {
            Some(follows) => self.reader.go_on(follows),
            // hyper has a complete head but reads on without starting a request.
            None if self.reader.has_handed_over() => Err(Violation::Disagreement),
            None => Ok(()),
        }
    }

    fn poll_socket(
        &mut self,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
        piece: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let room = piece.len().min(buf.remaining());
        let mut part = ReadBuf::new(piece.get_mut(..room).unwrap_or_default());
        let result = ready!(Pin::new(&mut self.io.socket).poll_read(cx, part.unfilled()));
        self.io.activity.made_progress();
        result?;
        if part.filled().is_empty() {
            return self.end(cx);
        }
        match self.reader.read(part.filled(), &mut buf) {
            Ok(used) => {
                // Copying an empty slice does not allocate.
                self.io.ahead = Bytes::copy_from_slice(part.filled().get(used..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Err(violation) => self.refuse(violation, cx),
        }
    }

    /// Ready when the instance has not agreed to switch protocols: what follows is then further requests or
    /// the end of the stream. Until then incoming bytes are buffered, up to [`read_buffer::SIZE`] bytes.
    fn poll_decision(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.io.activity.is_switching() && self.io.activity.poll_rest(cx).is_ready() {
            self.reader.decide_for_requests();
            return Poll::Ready(Ok(()));
        }
        while self.half_closed.is_none() && self.io.ahead.len() < read_buffer::SIZE {
            let mut space = [0; 1024];
            let mut part = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.io.socket).poll_read(cx, part.unfilled()))?;
            if part.filled().is_empty() {
                self.half_closed = Some(HalfClosed { since: Instant::now(), written: false });
            }
            self.io.ahead = [&self.io.ahead, part.filled()].concat().into();
        }
        if self.half_closed.is_some() && self.io.ahead.is_empty() {
            self.poll_half_closed(cx)
        } else {
            Poll::Pending
        }
    }

    fn refuse(&mut self, violation: Violation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.violation = Some(violation);
        self.poll_refused(violation, cx)
    }

    /// An over-long method in the next request must not abort the response in flight, so its error is delayed
    /// until no request is in flight.
    fn poll_refused(&mut self, violation: Violation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if violation == Violation::Method {
            ready!(self.io.activity.poll_rest(cx));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)))
    }

    /// The client has half-closed the connection. Within a request this is an end of file for hyper.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.reader.is_between_requests() {
            return Poll::Ready(Ok(()));
        }
        self.half_closed = Some(HalfClosed { since: Instant::now(), written: false });
        self.poll_half_closed(cx)
    }

    /// Ready, with end of file, when no response is in flight or the client is considered gone. The expiry of
    /// `patience` is noticed at the next tick of the connection timer.
    fn poll_half_closed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(half_closed) = &self.half_closed else { return Poll::Ready(Ok(())) };
        if self.io.activity.poll_rest(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.io.socket.take_error()? {
            return Poll::Ready(Err(error));
        }
        let is_patient = half_closed.written || half_closed.since.elapsed() < self.patience;
        if is_patient { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Writes pending interim responses. Must be called only while hyper has no partly written response.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            let Some(interim) = self.client.take_interim() else { return Poll::Ready(Ok(())) };
            self.interim = interim.into();
        }
        while !self.interim.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.interim))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.interim.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the rest of hyper's chunked body and inserts the trailer section before the final CRLF.
    /// `slices` is everything that hyper has to write: hyper starts no new response before that is done.
    fn poll_write_end(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if total > END_OF_CHUNKS.len() {
            let before_end = first.len().min(total - END_OF_CHUNKS.len());
            let part = first.get(..before_end).unwrap_or_default();
            return Pin::new(&mut self.io).poll_write(cx, part);
        }
        if self.end.is_empty() {
            self.end = [&self.io.activity.take_trailers(), END_OF_CHUNKS].concat().into();
        }
        while !self.end.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.end))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.end.advance(written),
            }
        }
        Poll::Ready(Ok(total))
    }

    /// Whether this type writes the end of the body in place of hyper.
    fn ends_with_trailers(&self) -> bool {
        self.io.activity.has_trailers() || !self.end.is_empty()
    }

    /// Must run before each write of hyper.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.io.activity.is_drained() {
            ready!(self.poll_interim(cx))?;
            self.io.activity.set_drained(false);
        }
        if let Some(half_closed) = &mut self.half_closed {
            half_closed.written = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for Http1Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_request(cx, buf)
    }
}

impl Write for Http1Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_turn(cx))?;
        if this.ends_with_trailers() {
            return this.poll_write_end(cx, &[io::IoSlice::new(bytes)]);
        }
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_turn(cx))?;
        if this.ends_with_trailers() {
            return this.poll_write_end(cx, slices);
        }
        Pin::new(&mut this.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when its write buffer is empty. Interim responses may be written at this point.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.io.activity.set_drained(true);
        ready!(this.poll_interim(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.violation == Some(Violation::Method) {
            // The 501 response is still to be written on this socket.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
