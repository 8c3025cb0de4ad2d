//! Tracks message framing of the HTTP/1.1 requests of a client before hyper reads them.
//!
//! hyper parses the requests. It receives one head at a time, and reports what follows the head before it
//! receives anything more. Both parsers thus agree on where each request ends. On the way, unencoded
//! characters in targets are percent-encoded, and input that hyper accepts but other servers interpret
//! differently is rejected.

use hyper::rt::ReadBufCursor;

use super::chunks::Chunks;
use crate::headers::{lines, target};
use crate::proxy::MAX_METHOD;

/// A protocol violation by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("the method is longer than any that is in use")]
    Method,
    #[error("the chunks of a body are malformed")]
    Chunk,
    #[error("it is not clear where a request ends")]
    Disagreement,
}

/// What follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follows {
    /// A body of this many bytes, possibly none.
    Length(u64),
    Chunks,
    /// Another protocol, if the instance agrees to switch.
    Tunnel,
}

/// Position in the stream of requests.
#[derive(Debug)]
pub(super) struct RequestReader {
    at: At,
}

#[derive(Debug)]
enum At {
    /// Before or within a method; the number of characters read so far.
    Method(usize),
    Target {
        in_query: bool,
    },
    /// In the rest of the request line.
    Version,
    Header(Line),
    /// After a head that hyper has received.
    HandedOver,
    Body(u64),
    Chunks(Chunks),
    /// In bytes that may belong to another protocol.
    Undecided,
    /// In input that hyper will reject.
    Opaque,
}

/// Content of the current line so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Nothing,
    Return,
    Text,
}

impl RequestReader {
    pub(super) fn new() -> Self {
        RequestReader { at: At::Method(0) }
    }

    /// Whether the last request is complete and the next one has not begun.
    pub(super) fn is_between_requests(&self) -> bool {
        matches!(self.at, At::Method(0))
    }

    /// Whether hyper has received a head and has not reported what follows it.
    pub(super) fn has_handed_over(&self) -> bool {
        matches!(self.at, At::HandedOver)
    }

    /// Whether it is undecided if the bytes that follow belong to another protocol. Until then hyper receives
    /// nothing.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.at, At::Undecided)
    }

    /// Treats the bytes that follow as requests: the protocol is not switched.
    pub(super) fn decide_for_requests(&mut self) {
        if self.is_undecided() {
            self.at = At::Method(0);
        }
    }

    /// Records what follows the last head according to hyper. Fails with [`Violation::Disagreement`] when no
    /// head was handed over.
    pub(super) fn go_on(&mut self, follows: Follows) -> Result<(), Violation> {
        if !self.has_handed_over() {
            return Err(Violation::Disagreement);
        }
        self.at = match follows {
            Follows::Length(0) => At::Method(0),
            Follows::Length(length) => At::Body(length),
            Follows::Chunks => At::Chunks(Chunks::new()),
            Follows::Tunnel => At::Undecided,
        };
        Ok(())
    }

    /// Copies the prefix of `input` that hyper may read now to `out`. Returns the number of bytes consumed
    /// from `input`.
    pub(super) fn read(&mut self, input: &[u8], out: &mut impl Sink) -> Result<usize, Violation> {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty())
            && let Some(rest) = rest.get(..rest.len().min(out.room())).filter(|rest| !rest.is_empty())
        {
            let count = self.step(rest, out)?;
            if count == 0 {
                break;
            }
            used += count;
        }
        Ok(used)
    }

    /// One step within `rest`. `rest` fits into `out` unless it is percent-encoded.
    fn step(&mut self, rest: &[u8], out: &mut impl Sink) -> Result<usize, Violation> {
        let (count, next) = match &mut self.at {
            At::Method(letters) => method(*letters, rest)?,
            At::Target { in_query } => {
                let in_query = *in_query;
                return Ok(self.target(in_query, rest, out));
            }
            At::Version => match memchr::memchr(b'\n', rest) {
                Some(end) => (end + 1, At::Header(Line::Nothing)),
                None => (rest.len(), At::Version),
            },
            At::Header(line) => header(*line, rest),
            At::Body(left) => {
                let length = (*left).min(rest.len() as u64);
                let next = if length == *left { At::Method(0) } else { At::Body(*left - length) };
                (usize::try_from(length).unwrap_or_default(), next)
            }
            At::Chunks(chunks) => {
                let (count, is_over) = chunks.take(rest)?;
                out.put(rest.get(..count).unwrap_or_default());
                if is_over {
                    self.at = At::Method(0);
                }
                return Ok(count);
            }
            At::HandedOver | At::Undecided => return Ok(0),
            At::Opaque => (rest.len(), At::Opaque),
        };
        self.at = next;
        out.put(rest.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn target(&mut self, mut in_query: bool, rest: &[u8], out: &mut impl Sink) -> usize {
        let special = |byte: &u8| {
            matches!(byte, b' ' | b'\r' | b'\n' | b'?') || target::must_be_encoded(*byte, in_query)
        };
        let plain = rest.iter().position(special).unwrap_or(rest.len());
        out.put(rest.get(..plain).unwrap_or_default());
        let Some(byte) = rest.get(plain).copied() else { return plain };
        in_query |= byte == b'?';
        self.at = match byte {
            b' ' => At::Version,
            // HTTP/0.9, which hyper rejects.
            b'\r' | b'\n' => At::Opaque,
            _ => At::Target { in_query },
        };
        if !target::must_be_encoded(byte, in_query) {
            out.put(&[byte]);
        } else if out.room() >= 3 {
            out.put(&target::percent_encoded(byte));
        } else {
            return plain;
        }
        plain + 1
    }
}

/// Continues in a method of which `letters` characters have been read.
fn method(mut letters: usize, rest: &[u8]) -> Result<(usize, At), Violation> {
    for (place, byte) in rest.iter().enumerate() {
        match byte {
            b' ' if letters > 0 => return Ok((place + 1, At::Target { in_query: false })),
            // Empty lines before a request are skipped (RFC 9112 section 2.2).
            b'\r' | b'\n' if letters == 0 => {}
            byte if is_token(*byte) && letters < MAX_METHOD => letters += 1,
            byte if is_token(*byte) => return Err(Violation::Method),
            _ => return Ok((rest.len(), At::Opaque)),
        }
    }
    Ok((rest.len(), At::Method(letters)))
}

/// Continues in header lines, at most to the end of the head.
fn header(mut line: Line, rest: &[u8]) -> (usize, At) {
    if line == Line::Nothing
        && let Some(length) = lines::whole_head(rest)
    {
        return (length, At::HandedOver);
    }
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', rest) {
        line = line.with(rest.get(start..end).unwrap_or_default());
        start = end + 1;
        if line != Line::Text {
            return (start, At::HandedOver);
        }
        line = Line::Nothing;
    }
    (rest.len(), At::Header(line.with(rest.get(start..).unwrap_or_default())))
}

impl Line {
    /// The line extended by `text`.
    fn with(self, text: &[u8]) -> Self {
        match (self, text) {
            (line, []) => line,
            (Line::Nothing, [b'\r']) => Line::Return,
            _ => Line::Text,
        }
    }
}

/// Whether `byte` may occur in a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Destination of bytes.
pub(super) trait Sink {
    /// Remaining capacity in bytes.
    fn room(&self) -> usize;
    /// Appends `bytes`, which must fit into the remaining capacity.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for ReadBufCursor<'_> {
    fn room(&self) -> usize {
        self.remaining()
    }

    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    struct Space {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Sink for Space {
        fn room(&self) -> usize {
            self.room - self.bytes.len()
        }

        fn put(&mut self, bytes: &[u8]) {
            assert!(bytes.len() <= self.room());
            self.bytes.extend(bytes);
        }
    }

    /// Everything handed over of `input` in pieces of at most `room`, with `follows` applied after each head,
    /// and the number of heads.
    fn handed_over(input: &[u8], room: usize, follows: &[Follows]) -> Result<(String, usize), Violation> {
        let (mut reader, mut used, mut all, mut heads) = (RequestReader::new(), 0, Vec::new(), 0);
        while used < input.len() {
            if reader.has_handed_over() {
                reader.go_on(follows[heads])?;
                heads += 1;
            }
            let mut space = Space { bytes: Vec::new(), room };
            let end = input.len().min(used + room);
            used += reader.read(&input[used..end], &mut space)?;
            all.extend(space.bytes);
        }
        heads += usize::from(reader.has_handed_over());
        Ok((String::from_utf8(all).unwrap(), heads))
    }

    #[test]
    fn targets_are_encoded_and_nothing_else_is_touched() {
        let head = "\r\nGET /ä`<?`\"? HTTP/1.1\r\nX-A: <ä>\r\n\r\n";
        let encoded = "\r\nGET /%C3%A4%60%3C?`%22? HTTP/1.1\r\nX-A: <ä>\r\n\r\n";
        let body = "<ä>\r\n\r\nGET /ä HTTP/1.1\r\n\r\n";
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let input = format!("{head}{head}{body}{head}{chunks}{head}");
        let expected = format!("{encoded}{encoded}{body}{encoded}{chunks}{encoded}");
        let follows =
            [Follows::Length(0), Follows::Length(body.len() as u64), Follows::Chunks, Follows::Length(0)];
        for room in [3, 7, 64, 4096] {
            assert_eq!(handed_over(input.as_bytes(), room, &follows), Ok((expected.clone(), 4)), "{room}");
        }
    }

    #[test]
    fn nothing_behind_a_head_is_handed_over_before_it_is_known_what_that_is() {
        for head in
            ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\nHost: h\n\n", "GET / HTTP/1.1\r\n\n"]
        {
            let mut space = Space { bytes: Vec::new(), room: 4096 };
            let mut reader = RequestReader::new();
            assert_eq!(reader.read(format!("{head}rest").as_bytes(), &mut space), Ok(head.len()));
            assert_eq!(space.bytes, head.as_bytes());
            assert_eq!(reader.read(b"rest", &mut space), Ok(0));
            assert_eq!(reader.go_on(Follows::Tunnel), Ok(()));
            assert_eq!(reader.read(b"rest", &mut space), Ok(0));
            reader.decide_for_requests();
            assert_eq!(reader.read(b"rest", &mut space), Ok(4));
            assert_eq!(reader.go_on(Follows::Length(0)), Err(Violation::Disagreement));
        }
    }

    #[test]
    fn a_method_has_an_end() {
        let read = |input: &str| handed_over(input.as_bytes(), 4096, &[]).map(|(text, _)| text);
        assert_eq!(read(&"A".repeat(MAX_METHOD)), Ok("A".repeat(MAX_METHOD)));
        assert_eq!(read(&"A".repeat(MAX_METHOD + 1)), Err(Violation::Method));
        // hyper reports the error for these.
        for odd in ["GET\r\nä /ä", " GET /ä", "(ä) /ä"] {
            assert_eq!(read(odd), Ok(odd.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn a_head_is_the_same_whatever_pieces_it_comes_in(
            path in "/[a-z%?<\"\u{e4}]{0,8}", lines in vec("[A-Z]{1,3}: [ -~]{0,6}\r?\n", 0..4), room in 3usize..40,
        ) {
            let head = format!("GET {path} HTTP/1.1\r\n{}\r\n", lines.concat());
            let whole = handed_over(head.as_bytes(), 4096, &[]);
            prop_assert_eq!(whole.as_ref().map(|(_, heads)| *heads), Ok(1));
            prop_assert_eq!(handed_over(head.as_bytes(), room, &[]), whole);
        }

        #[test]
        fn what_was_encoded_is_not_encoded_again(path in "/[a-z%?<\"\u{e4}`]{0,12}") {
            let head = format!("GET {path} HTTP/1.1\r\n\r\n");
            let once = handed_over(head.as_bytes(), 4096, &[]).unwrap().0;
            prop_assert_eq!(handed_over(once.as_bytes(), 4096, &[]).unwrap().0, once);
        }

        #[test]
        fn no_bytes_make_it_panic(input in vec(prop_oneof![Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..80)) {
            let mut space = Space { bytes: Vec::new(), room: 4096 };
            let _ = RequestReader::new().read(&input, &mut space);
        }
    }
}
