//! Percent-encoding of request targets (RFC 3986).

use http::Uri;
use http::uri::{InvalidUriParts, PathAndQuery};

/// Whether `byte` of a path or query must be percent-encoded but is known to be sent raw by clients:
/// non-ASCII bytes and the characters that browsers encode. Control bytes are not included: no legitimate
/// client sends them.
pub fn must_be_encoded(byte: u8, in_query: bool) -> bool {
    matches!(byte, 0x80..|b'"'| b'<' | b'>') || (byte == b'`' && !in_query)
}

/// `byte` percent-encoded.
pub fn percent_encoded(byte: u8) -> [u8; 3] {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'A' + nibble - 10 };
    [b'%', digit(byte >> 4), digit(byte & 15)]
}

/// Percent-encodes the bytes of path and query of `uri` that [must be encoded](must_be_encoded). Everything
/// else stays unchanged.
pub fn encode(uri: &mut Uri) -> Result<(), InvalidUriParts> {
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if target.bytes().all(|byte| byte.is_ascii() && !must_be_encoded(byte, false)) {
        return Ok(());
    }
    let (mut encoded, mut in_query) = (Vec::with_capacity(target.len() * 3), false);
    for byte in target.bytes() {
        in_query |= byte == b'?';
        if must_be_encoded(byte, in_query) {
            encoded.extend(percent_encoded(byte));
        } else {
            encoded.push(byte);
        }
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::from_maybe_shared(encoded).ok();
    *uri = Uri::from_parts(parts)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(target: &str) -> String {
        let mut uri: Uri = target.parse().unwrap();
        encode(&mut uri).unwrap();
        uri.to_string()
    }

    #[test]
    fn what_must_be_encoded_is_and_all_else_stays() {
        assert_eq!(encoded("/a%20b/~c;d=1?x=[1]&y=`{z}`"), "/a%20b/~c;d=1?x=[1]&y=`{z}`");
        assert_eq!(encoded("/ä\"b?q=知"), "/%C3%A4%22b?q=%E7%9F%A5");
        assert_eq!(encoded("http://h:81/ä"), "http://h:81/%C3%A4");
        assert_eq!(encoded("*"), "*");
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_ascii_and_means_the_same(path in "/[a-zä知\"/%]{0,12}", query in "[a-z&=é?]{0,12}") {
            let raw = format!("{path}?{query}");
            let encoded = encoded(&raw);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
            let mut bytes = Vec::new();
            let mut rest = encoded.as_bytes();
            // Only the encoder writes upper-case digits here.
            while let Some((first, tail)) = rest.split_first() {
                let digits = tail.get(..2).filter(|two| !two.iter().any(u8::is_ascii_lowercase));
                let digits = digits.and_then(|two| std::str::from_utf8(two).ok()).unwrap_or_default();
                match u8::from_str_radix(digits, 16) {
                    Ok(byte) if *first == b'%' && (byte >= 0x80 || byte == b'"') => {
                        bytes.push(byte);
                        rest = &tail[2..];
                    }
                    _ => {
                        bytes.push(*first);
                        rest = tail;
                    }
                }
            }
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), raw);
        }
    }
}
