//! Reading `multipart/form-data` (RFC 7578) piece by piece, keeping only what is known of its files.

use bytes::{Buf, BytesMut};
use memchr::memmem;

/// Most bytes of one part's headers.
const HEAD_LIMIT: usize = 8 * 1024;
/// Most characters of a boundary (RFC 2046, section 5.1.1).
const BOUNDARY_LIMIT: usize = 70;

/// A part with the field name `file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) mime_type: String,
    pub(super) size: u64,
}

/// The body is not what its content type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the multipart body is malformed")]
pub(super) struct Malformed;

/// The boundary in a `Content-Type`, if that is `multipart/form-data`.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let mut pieces = content_type.split(';');
    if !pieces.next()?.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(pieces, "boundary").filter(|boundary| (1..=BOUNDARY_LIMIT).contains(&boundary.len()))
}

/// The value of `name=value` or `name="value"` among `pieces`.
fn parameter<'a>(pieces: impl Iterator<Item = &'a str>, name: &str) -> Option<&'a str> {
    pieces
        .filter_map(|piece| piece.trim().split_once('='))
        .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
        .map(|value| value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Takes a body in pieces of any size; holds back no more than a boundary or a part's headers.
#[derive(Debug)]
pub(super) struct Scanner {
    delimiter: Vec<u8>,
    buffer: BytesMut,
    place: Place,
    files: Vec<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the content of a part, or before the first one.
    Content {
        in_file: bool,
    },
    AfterDelimiter,
    Head,
    End,
}

impl Scanner {
    pub(super) fn new(boundary: &str) -> Self {
        Scanner {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // The first delimiter stands at the start of a line too.
            buffer: BytesMut::from("\r\n"),
            place: Place::Content { in_file: false },
            files: Vec::new(),
        }
    }

    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Malformed> {
        self.buffer.extend_from_slice(piece);
        while self.advance()? {}
        Ok(())
    }

    /// The files of the whole body.
    pub(super) fn finish(self) -> Result<Vec<File>, Malformed> {
        if self.place == Place::End { Ok(self.files) } else { Err(Malformed) }
    }

    /// One step; `false` when it takes more bytes to go on.
    fn advance(&mut self) -> Result<bool, Malformed> {
        match self.place {
            Place::Content { in_file } => Ok(self.content(in_file)),
            Place::AfterDelimiter => self.after_delimiter(),
            Place::Head => self.head(),
            Place::End => {
                self.buffer.clear();
                Ok(false)
            }
        }
    }

    fn content(&mut self, in_file: bool) -> bool {
        let end = memmem::find(&self.buffer, &self.delimiter);
        // The last bytes may be the beginning of a delimiter.
        let length = end.unwrap_or_else(|| (self.buffer.len() + 1).saturating_sub(self.delimiter.len()));
        if in_file && let Some(file) = self.files.last_mut() {
            file.size += length as u64;
        }
        self.buffer.advance(length);
        if end.is_some() {
            self.buffer.advance(self.delimiter.len());
            self.place = Place::AfterDelimiter;
        }
        end.is_some()
    }

    fn after_delimiter(&mut self) -> Result<bool, Malformed> {
        self.place = match self.buffer.get(..2) {
            None => return Ok(false),
            Some(b"--") => Place::End,
            // The line end stays: a part without headers has nothing but it before its empty line.
            Some(b"\r\n") => Place::Head,
            Some(_) => return Err(Malformed),
        };
        Ok(true)
    }

    fn head(&mut self) -> Result<bool, Malformed> {
        let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") else {
            return if self.buffer.len() > HEAD_LIMIT { Err(Malformed) } else { Ok(false) };
        };
        let head = self.buffer.split_to(end + 4);
        let file = file(&String::from_utf8_lossy(&head));
        self.place = Place::Content { in_file: file.is_some() };
        self.files.extend(file);
        Ok(true)
    }
}

/// The file a part's headers announce.
fn file(head: &str) -> Option<File> {
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then_some(value.trim()))
    };
    let disposition = header("content-disposition")?;
    if parameter(disposition.split(';'), "name")? != "file" {
        return None;
    }
    Some(File {
        name: parameter(disposition.split(';'), "filename")?.to_owned(),
        mime_type: header("content-type").unwrap_or("application/octet-stream").to_owned(),
        size: 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(content: &[u8]) -> Vec<u8> {
        let mut body = b"--B\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu-1\r\n\
            --B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\n\
            Content-Type: text/plain\r\n\r\n"
            .to_vec();
        body.extend(content);
        body.extend(b"\r\n--B--\r\n");
        body
    }

    fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<File>, Malformed> {
        let mut scanner = Scanner::new("B");
        for piece in pieces {
            scanner.push(piece)?;
        }
        scanner.finish()
    }

    fn text_file(size: u64) -> File {
        File { name: "a b.txt".to_owned(), mime_type: "text/plain".to_owned(), size }
    }

    #[test]
    fn an_empty_file_has_no_bytes() {
        assert_eq!(scan([body(b"").as_slice()]), Ok(vec![text_file(0)]));
    }

    #[test]
    fn a_body_without_its_end_is_malformed() {
        let body = body(b"content");
        assert_eq!(scan([&body[..body.len() - 5]]), Err(Malformed));
        assert_eq!(scan([b"--Bxx\r\n".as_slice()]), Err(Malformed));
    }

    #[test]
    fn endless_headers_are_refused() {
        let mut scanner = Scanner::new("B");
        scanner.push(b"--B\r\n").unwrap();
        assert_eq!(scanner.push(&[b'x'; HEAD_LIMIT + 1]), Err(Malformed));
    }

    #[test]
    fn the_boundary_is_read_from_the_content_type() {
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some("abc"));
        assert_eq!(boundary("Multipart/Form-Data; charset=utf-8; Boundary=\"a b\""), Some("a b"));
        assert_eq!(boundary("application/json; boundary=abc"), None);
        assert_eq!(boundary("multipart/form-data"), None);
        assert_eq!(boundary("multipart/form-data; boundary="), None);
    }

    proptest! {
        /// Content from the letters of the delimiter meets every way a delimiter can almost occur.
        #[test]
        fn the_size_does_not_depend_on_the_pieces(
            content in proptest::collection::vec(prop::sample::select(b"\r\n-Bx".to_vec()), 0..60),
            piece in 1usize..40,
        ) {
            prop_assume!(memmem::find(&[b"\r\n", content.as_slice()].concat(), b"\r\n--B").is_none());
            let body = body(&content);
            prop_assert_eq!(scan(body.chunks(piece)), Ok(vec![text_file(content.len() as u64)]));
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = scan([bytes.as_slice()]);
        }
    }
}
