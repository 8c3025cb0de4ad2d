//! The client's socket as hyper sees it in HTTP/1.1: requests pass a [`RequestReader`] on their way in, and interim
//! responses, which hyper does not write, go out between its writes.

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

/// A client's socket. What is still to be read of `io.ahead` has not passed the reader yet.
#[derive(Debug)]
pub(super) struct Http1Io {
    pub(super) io: ClientIo,
    client: Arc<Client>,
    reader: RequestReader,
    violation: Option<Violation>,
    half_closed: Option<HalfClosed>,
    /// How long a client is waited for that has closed its half and may be gone.
    patience: Duration,
    /// What is still to be written of interim responses.
    interim: Bytes,
    /// What is still to be written in the place of [`END_OF_CHUNKS`].
    end: Bytes,
}

/// What hyper ends a chunked body with, behind the line of the last chunk.
const END_OF_CHUNKS: &[u8] = b"\r\n";

/// The client sends nothing more: because it has nothing more to say, or because it has left.
#[derive(Debug)]
struct HalfClosed {
    since: Instant,
    /// Whether something was written since; a client that has left answers with a reset.
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

    /// What ended the reading of requests, if it was the client's doing.
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

    /// Lets the reader know what follows the head that hyper was handed.
    fn go_on(&mut self) -> Result<(), Violation> {
        match self.io.activity.take_follows() {
            Some(follows) => self.reader.go_on(follows),
            // hyper has a whole head and wants more of it.
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
                // Nothing is allocated for nothing.
                self.io.ahead = Bytes::copy_from_slice(part.filled().get(used..).unwrap_or_default());
                Poll::Ready(Ok(()))
            }
            Err(violation) => self.refuse(violation, cx),
        }
    }

    /// Ready when an instance has not agreed on another protocol: then there are further requests, or the end of them.
    /// Meanwhile what comes is kept, up to [`read_buffer::SIZE`] bytes.
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

    /// The next request must not take the response to the one before with it.
    fn poll_refused(&mut self, violation: Violation, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if violation == Violation::Method {
            ready!(self.io.activity.poll_rest(cx));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)))
    }

    /// The client has closed its half. Within a request, that is the end.
    fn end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.reader.is_between_requests() {
            return Poll::Ready(Ok(()));
        }
        self.half_closed = Some(HalfClosed { since: Instant::now(), written: false });
        self.poll_half_closed(cx)
    }

    /// Ready, with the end, when no response is under way, or nobody is there to take it. What time brings is noticed at
    /// the next look of the connection's keeper.
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

    /// Writes the interim responses that wait. To be called while nothing of hyper's is half written.
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

    /// Writes what hyper has left of a chunked body, with the trailer section before its very end. `slices` is all that
    /// hyper has to write: it begins nothing new before that is done.
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

    /// Whether the end of a body is not hyper's to write.
    fn ends_with_trailers(&self) -> bool {
        self.io.activity.has_trailers() || !self.end.is_empty()
    }

    /// Comes before each of hyper's writes.
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

    /// hyper flushes when it has written all it had.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.io.activity.set_drained(true);
        ready!(this.poll_interim(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.violation == Some(Violation::Method) {
            // The refusal is still to be written.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
