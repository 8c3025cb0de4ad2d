//! The lines of a head (RFC 9112 sections 2.1 and 2.2).

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Behind the last line of a head.
static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// The length of the head that begins, or goes on with a line, where `bytes` begin. `None` where that takes a closer
/// look: the head is not whole, has nothing but its empty line, or has a line that ends in a line feed alone.
///
/// Nearly all heads come whole and well formed, and are not worth a look at every line.
pub fn whole_head(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\n") || bytes.starts_with(b"\r\n") {
        return None;
    }
    let head = bytes.get(..EMPTY_LINE.find(bytes)? + 4)?;
    // Without a branch, so that many bytes are compared at a time.
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
