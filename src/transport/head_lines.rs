//! Validation of the line endings in a response head.
//!
//! RFC 9112 section 2.2 permits a single LF as a line terminator, and some old servers use only that. A
//! single LF in a head whose other lines end in CRLF is a sign of header injection: an application that
//! removes CR but not LF from header values would let its users add header lines.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::headers::lines;
use crate::socket::Inspect;

/// Whether the next bytes of a connection are a response head. Set by the code that sends requests on it.
#[derive(Debug, Default)]
pub(super) struct Expectation(AtomicBool);

/// Parses the line endings of the response heads on one connection.
#[derive(Debug)]
pub(super) struct HeadLines {
    expected: Arc<Expectation>,
    /// `None` between heads.
    head: Option<Head>,
}

/// The state of a partly received head.
#[derive(Debug, Default)]
struct Head {
    /// Whether the first line ended in CRLF; `None` while it is incomplete.
    ends_in_two: Option<bool>,
    /// The beginning of the first line, up to and including the status code.
    start: [u8; STATUS.end],
    started: usize,
    /// Bytes of the present line so far, and whether the last one is a CR.
    length: usize,
    after_return: bool,
}

/// Position of the status code in the first line (RFC 9112 section 4).
const STATUS: std::ops::Range<usize> = 9..12;

/// A line ends in LF alone although the first line ends in CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line of the head ends in a line feed alone, unlike the others")]
pub struct MixedLines;

impl Expectation {
    /// Marks the next bytes as a head.
    pub(super) fn set(&self) {
        self.0.store(true, Relaxed);
    }

    fn take(&self) -> bool {
        self.0.load(Relaxed) && {
            self.0.store(false, Relaxed);
            true
        }
    }
}

impl HeadLines {
    /// `expected` is set when the next bytes are a head.
    pub(super) fn new(expected: Arc<Expectation>) -> Self {
        HeadLines { expected, head: None }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), MixedLines> {
        if self.head.is_none() && !bytes.is_empty() && self.expected.take() {
            self.head = Some(Head::default());
        }
        let mut rest = bytes;
        while let Some(head) = &mut self.head
            && let Some(length) = head.read(rest)?
        {
            rest = rest.get(length..).unwrap_or_default();
            // An interim response is followed by another head.
            self.head = head.is_interim().then(Head::default);
        }
        Ok(())
    }
}

impl Inspect for HeadLines {
    fn inspect(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.read(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl MixedLines {
    /// Returns the `MixedLines` that caused `error`, if any.
    pub(super) fn of(error: &hyper::Error) -> Option<MixedLines> {
        let io = error.source()?.downcast_ref::<io::Error>()?;
        io.get_ref()?.downcast_ref::<MixedLines>().copied()
    }
}

impl Head {
    /// Parses more bytes. Returns the number of bytes that belong to the head when it is complete, else
    /// `None`.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, MixedLines> {
        if self.is_new()
            && let Some(length) = lines::whole_head(bytes)
        {
            self.add(bytes.get(..self.start.len()).unwrap_or(bytes));
            return Ok(Some(length));
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            self.add(bytes.get(start..end).unwrap_or_default());
            start = end + 1;
            if self.end_line()? {
                return Ok(Some(start));
            }
        }
        self.add(bytes.get(start..).unwrap_or_default());
        Ok(None)
    }

    fn is_new(&self) -> bool {
        self.ends_in_two.is_none() && self.length == 0
    }

    /// Adds a part of a line.
    fn add(&mut self, part: &[u8]) {
        if self.ends_in_two.is_none() {
            let room = self.start.get_mut(self.started..).unwrap_or_default();
            for (to, from) in room.iter_mut().zip(part) {
                *to = *from;
                self.started += 1;
            }
        }
        self.length = self.length.saturating_add(part.len());
        self.after_return = part.last().map_or(self.after_return, |last| *last == b'\r');
    }

    /// Ends a line at an LF. Returns true at the end of the head.
    fn end_line(&mut self) -> Result<bool, MixedLines> {
        let after_return = std::mem::take(&mut self.after_return);
        let is_empty = std::mem::take(&mut self.length) == usize::from(after_return);
        match self.ends_in_two {
            // Empty lines before the first line are ignored.
            None if is_empty => {
                self.started = 0;
                Ok(false)
            }
            None => {
                self.ends_in_two = Some(after_return);
                Ok(false)
            }
            Some(true) if !after_return => Err(MixedLines),
            Some(_) => Ok(is_empty),
        }
    }

    /// Whether this is the head of an interim response, which another head follows (RFC 9110 section 15.2).
    fn is_interim(&self) -> bool {
        self.start.get(STATUS).is_some_and(|status| status.starts_with(b"1") && status != b"101")
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(), MixedLines> {
        let expected = Arc::new(Expectation::default());
        let mut lines = HeadLines::new(expected.clone());
        expected.set();
        pieces.iter().try_for_each(|piece| lines.read(piece))
    }

    #[test]
    fn lines_that_end_differently_are_found_in_the_head_only() {
        for good in [
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n\n\n",
            "HTTP/1.1 200 OK\nA: b\n\nbody\r\n\n",
            "\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            "HTTP/1.1 101 S\r\n\r\n\n\n",
        ] {
            assert_eq!(read(&[good.as_bytes()]), Ok(()), "{good:?}");
        }
        for bad in [
            "HTTP/1.1 200 OK\r\nA: b\nSet-Cookie: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "HTTP/1.1 200 OK\r\n\n",
            "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        ] {
            assert_eq!(read(&[bad.as_bytes()]), Err(MixedLines), "{bad:?}");
        }
    }

    #[test]
    fn each_request_has_one_head() {
        let expected = Arc::new(Expectation::default());
        let mut lines = HeadLines::new(expected.clone());
        expected.set();
        assert_eq!(lines.read(b"HTTP/1.1 200 OK\r\n\r\na\nb"), Ok(()));
        assert_eq!(lines.read(b"HTTP/1.1 200 OK\r\nc\nd\r\n\r\n"), Ok(()));
        expected.set();
        assert_eq!(lines.read(b"HTTP/1.1 200 OK\r\nc\nd\r\n\r\n"), Err(MixedLines));
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_parted_makes_no_difference(
            lines in vec("[aHT/1 20\r]{0,4}(\r\n|\n)", 0..8), at in vec(0..40_usize, 0..4)
        ) {
            let all = format!("HTTP/1.1 200 OK\r\n{}", lines.concat());
            let mut cuts: Vec<usize> = at.into_iter().map(|cut| cut.min(all.len())).collect();
            cuts.extend([0, all.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &all.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[all.as_bytes()]));
        }
    }
}
