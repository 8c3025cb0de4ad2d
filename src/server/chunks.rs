//! Validation of the chunked coding of a request body, byte by byte (RFC 9112 section 7.1).
//!
//! Parsers disagree on chunked bodies that deviate slightly from the grammar. Such a body enables request
//! smuggling: one parser takes bytes as body that another takes as the next request. All deviations are
//! therefore rejected.

use super::reader::{Violation, is_token};

/// Maximum number of digits of a chunk size, including leading zeros.
const MAX_DIGITS: u32 = 32;
/// Maximum length in bytes of the extensions of one chunk.
const MAX_EXTENSIONS: u32 = 4096;

/// Position in a chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    at: At,
    /// Size of the chunk whose size line is being read.
    size: u64,
    /// Number of digits read of the chunk size, then number of bytes read of the extensions.
    count: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    /// White space before a semicolon.
    BeforeSemicolon,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Value,
    Quoted,
    Escaped,
    AfterQuoted,
    LineFeed,
    Data(u64),
    DataReturn,
    DataLineFeed,
    /// Start of a trailer line or of the final empty line.
    Field,
    FieldName,
    FieldValue,
    FieldLineFeed,
    EndLineFeed,
    End,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Chunks { at: At::Size, size: 0, count: 0 }
    }

    /// Consumes the part of `input` that belongs to the body. Returns the number of bytes consumed and
    /// whether the body is complete.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), Violation> {
        let mut used = 0;
        while let Some(byte) = input.get(used)
            && self.at != At::End
        {
            if let At::Data(left) = self.at {
                let length = left.min((input.len() - used) as u64);
                used += usize::try_from(length).unwrap_or_default();
                self.at = if length == left { At::DataReturn } else { At::Data(left - length) };
            } else {
                self.at = self.next(*byte)?;
                used += 1;
            }
        }
        Ok((used, self.at == At::End))
    }

    fn next(&mut self, byte: u8) -> Result<At, Violation> {
        match self.at {
            At::Size => self.size(byte),
            At::LineFeed | At::DataReturn | At::DataLineFeed | At::Data(_) => self.data(byte),
            At::Field | At::FieldName | At::FieldValue | At::FieldLineFeed | At::EndLineFeed | At::End => {
                trailer(self.at, byte)
            }
            at => self.extension(at, byte),
        }
    }

    fn size(&mut self, byte: u8) -> Result<At, Violation> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            self.count += 1;
            let size = self.size.checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
            self.size = size.filter(|_| self.count <= MAX_DIGITS).ok_or(Violation::Chunk)?;
            return Ok(At::Size);
        }
        if self.count == 0 {
            return Err(Violation::Chunk);
        }
        self.count = 0;
        match byte {
            b'\r' => Ok(At::LineFeed),
            b';' => Ok(At::BeforeName),
            b' ' | b'\t' => Ok(At::BeforeSemicolon),
            _ => Err(Violation::Chunk),
        }
    }

    fn extension(&mut self, at: At, byte: u8) -> Result<At, Violation> {
        self.count += 1;
        if self.count > MAX_EXTENSIONS {
            return Err(Violation::Chunk);
        }
        match (at, byte) {
            (At::BeforeSemicolon | At::AfterName | At::AfterQuoted | At::Name | At::Value, b';') => {
                Ok(At::BeforeName)
            }
            (At::BeforeSemicolon | At::BeforeName | At::AfterName | At::BeforeValue, b' ' | b'\t') => Ok(at),
            (At::Name, b' ' | b'\t') => Ok(At::AfterName),
            (At::Value | At::AfterQuoted, b' ' | b'\t') => Ok(At::BeforeSemicolon),
            (At::Name | At::AfterName, b'=') => Ok(At::BeforeValue),
            (At::Name | At::Value | At::AfterQuoted, b'\r') => Ok(At::LineFeed),
            (At::BeforeName | At::Name, byte) if is_token(byte) => Ok(At::Name),
            (At::BeforeValue | At::Value, byte) if is_token(byte) => Ok(At::Value),
            (At::BeforeValue, b'"') => Ok(At::Quoted),
            (At::Quoted, b'"') => Ok(At::AfterQuoted),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            (At::Quoted | At::Escaped, byte) if is_text(byte) => Ok(At::Quoted),
            _ => Err(Violation::Chunk),
        }
    }

    fn data(&mut self, byte: u8) -> Result<At, Violation> {
        match (self.at, byte) {
            (At::LineFeed, b'\n') => {
                self.count = 0;
                Ok(match std::mem::take(&mut self.size) {
                    0 => At::Field,
                    size => At::Data(size),
                })
            }
            (At::DataReturn, b'\r') => Ok(At::DataLineFeed),
            (At::DataLineFeed, b'\n') => Ok(At::Size),
            _ => Err(Violation::Chunk),
        }
    }
}

fn trailer(at: At, byte: u8) -> Result<At, Violation> {
    match (at, byte) {
        (At::Field, b'\r') => Ok(At::EndLineFeed),
        (At::EndLineFeed, b'\n') => Ok(At::End),
        (At::Field | At::FieldName, byte) if is_token(byte) => Ok(At::FieldName),
        (At::FieldName, b':') => Ok(At::FieldValue),
        (At::FieldValue, b'\r') => Ok(At::FieldLineFeed),
        (At::FieldValue, byte) if is_text(byte) => Ok(At::FieldValue),
        (At::FieldLineFeed, b'\n') => Ok(At::Field),
        _ => Err(Violation::Chunk),
    }
}

/// Whether `byte` is allowed in field values and quoted strings (RFC 9110 sections 5.5 and 5.6.4).
fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The length of the body in `input`, fed in parts cut at `cuts`. `None` when the body is incomplete.
    fn body(input: &[u8], cuts: &[usize]) -> Result<Option<usize>, Violation> {
        let (mut chunks, mut used, mut from) = (Chunks::new(), 0, 0);
        let ends = cuts.iter().map(|cut| cut % (input.len() + 1)).chain([input.len()]);
        for end in ends {
            let piece = input.get(from..end).unwrap_or_default();
            let (count, over) = chunks.take(piece)?;
            used += count;
            if over {
                return Ok(Some(used));
            }
            from = from.max(end);
        }
        Ok(None)
    }

    #[test]
    fn a_body_ends_with_its_last_chunk_and_trailers() {
        for (input, length) in [
            (&b"0\r\n\r\nrest"[..], Some(5)),
            (b"5\r\nhello\r\n0\r\n\r\nGET /", Some(15)),
            (b"A ; a = \"\\\"\" ;b\r\n0123456789\r\n0;c=d\r\nX-T: \xe9\r\nY:\r\n\r\n", Some(50)),
            (b"5\r\nhello\r\n", None),
            (b"0\r\n\r", None),
        ] {
            assert_eq!(body(input, &[]), Ok(length), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn what_is_not_written_by_the_grammar_is_refused() {
        let endless = [b"0".repeat(40), b"5;".iter().copied().chain(vec![b'a'; 5000]).collect()];
        let refused: [&[u8]; 12] = [
            b"5 \r\n",
            b"5;\r\n",
            b"5;a=\r\n",
            b"5;a \r\n",
            b"5\n",
            b"5\r\r",
            b"\r\n",
            b"-5\r\n",
            b"5;a=\"\r\n",
            b"0\r\n\n",
            b"0\r\n a\r\n",
            b"10000000000000000\r\n",
        ];
        for input in refused.into_iter().chain(endless.iter().map(Vec::as_slice)) {
            assert_eq!(body(input, &[]), Err(Violation::Chunk), "{}", input.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn where_the_pieces_are_cut_makes_no_difference(
            chunks in vec((vec(any::<u8>(), 1..20), "(;[a-z]{1,3}(=[a-z]{1,3})?)?"), 0..4),
            trailer in "([A-Z]{1,3}: [ -~]{0,5}\r\n)?",
            cuts in vec(any::<usize>(), 0..4),
        ) {
            let mut input = Vec::new();
            for (data, extension) in &chunks {
                input.extend(format!("{:x}{extension}\r\n", data.len()).bytes());
                input.extend(data);
                input.extend(b"\r\n");
            }
            input.extend(format!("0\r\n{trailer}\r\n").bytes());
            let length = input.len();
            input.extend(b"GET / HTTP/1.1");
            let mut cuts = cuts;
            cuts.iter_mut().for_each(|cut| *cut %= input.len());
            cuts.sort_unstable();
            prop_assert_eq!(body(&input, &cuts), Ok(Some(length)));
        }

        #[test]
        fn no_bytes_make_it_panic(input in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'5'), any::<u8>()], 0..60)) {
            let _ = body(&input, &[]);
        }
    }
}
