//! Lines of a message head (RFC 9112 sections 2.1 and 2.2).

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The end of the last line and the empty line after it.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// The length of the head, or of the rest of a head, at the start of `bytes`. `bytes` must begin at the start
/// of a line. Returns `None` when the lines must be examined one by one: the head is incomplete, begins with
/// the empty line, or contains a line that ends in a bare line feed.
///
/// Fast path: nearly all heads are complete and well formed.
pub fn whole_head(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\n") || bytes.starts_with(b"\r\n") {
        return None;
    }
    let head = bytes.get(..EMPTY_LINE.find(bytes)? + 4)?;
    // Branch-free, so that the compiler can vectorize the loop.
    let lone = head
        .iter()
        .zip(head.get(1..)?)
        .fold(0, |lone, (before, byte)| lone | (u8::from(*byte == b'\n') & u8::from(*before != b'\r')));
    (lone == 0).then_some(head.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_whole_with_its_empty_line_and_no_line_feed_alone() {
        for (text, length) in [
            ("A: b\r\n\r\n", Some(8)),
            ("A: b\r\n\r\nrest\n\r\n\r\n", Some(8)),
            ("A: b\rc\r\r\n\r\n", Some(11)),
            ("A: b\r\n", None),
            ("A: b\n\r\n\r\n", None),
            ("A: b\r\nC: d\n\r\n\r\n", None),
            ("\r\nA: b\r\n\r\n", None),
            ("\nA: b\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(whole_head(text.as_bytes()), length, "{text:?}");
        }
    }
}
