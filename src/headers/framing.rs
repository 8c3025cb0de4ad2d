//! Message framing by `Content-Length`.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue};

/// Reduces a length that is repeated, on several lines or as a list, to a single number (RFC 9110 section
/// 8.6). Returns false when the values differ or one is not a number. In that case all `Content-Length` lines
/// are removed, and the message needs other framing.
pub fn keep_one_length(headers: &mut HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return true };
    if lines.next().is_none() && is_number(first.as_bytes()) {
        return true;
    }
    let length = common_length(headers);
    match length {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.remove(CONTENT_LENGTH),
    };
    length.is_some()
}

/// The number on which all lines and elements agree.
fn common_length(headers: &HeaderMap) -> Option<u64> {
    let mut common = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for element in line.to_str().ok()?.split(',').map(str::trim) {
            let length = is_number(element.as_bytes()).then(|| element.parse().ok())??;
            if common.is_some_and(|common| common != length) {
                return None;
            }
            common = Some(length);
        }
    }
    common
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(lines: &[&str]) -> Vec<String> {
        let mut headers: HeaderMap =
            lines.iter().map(|line| (CONTENT_LENGTH, HeaderValue::from_str(line).unwrap())).collect();
        keep_one_length(&mut headers);
        headers.get_all(CONTENT_LENGTH).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn equal_lengths_become_one_and_others_go() {
        assert_eq!(kept(&[]), [""; 0]);
        for lines in [&["5"][..], &["5", "5"], &["5, 5"], &["5,5", " 5"], &["05", "5"]] {
            assert_eq!(kept(lines), ["5"], "{lines:?}");
        }
        for lines in [&["5", "6"][..], &["5, 6"], &["5,"], &["+5"], &["5 5"], &[""], &["5, x"], &["-1"]] {
            assert_eq!(kept(lines), [""; 0], "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_one_number(lines in proptest::collection::vec("[0-9, x+]{0,6}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let kept = kept(&lines);
            prop_assert!(kept.len() <= 1);
            prop_assert!(kept.iter().all(|length| is_number(length.as_bytes())));
        }
    }
}
