//! Reading and removing cookies of the `Cookie` request header, byte-exact.
//!
//! A request may have several `Cookie` lines (HTTP/2 splits them, RFC 9113 section 8.2.3); all are read. As
//! in RFC 6265bis section 5.6, spaces and tabs around names and values are ignored, names are compared
//! exactly, and a part without `=` has no name. Quotes are part of the value.

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

/// The values of all cookies called `name`, in the order of the request. Does not allocate.
pub fn cookie_values<'h, 'n>(
    headers: &'h HeaderMap,
    name: &'n str,
) -> impl Iterator<Item = &'h [u8]> + use<'h, 'n> {
    headers
        .get_all(COOKIE)
        .into_iter()
        .flat_map(|line| parts(line.as_bytes()))
        .filter_map(move |part| value_of(part, name.as_bytes()))
}

/// Removes every cookie called `name`. All other cookies stay byte for byte and in order. A line without
/// remaining cookies is removed. Requests without the cookie are not changed.
pub fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    if cookie_values(headers, name).next().is_none() {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(COOKIE).into_iter().filter_map(|line| without(line, name.as_bytes())).collect();
    headers.remove(COOKIE);
    for line in kept {
        headers.append(COOKIE, line);
    }
}

/// The value without a pair of surrounding quotes (`cookie-value`, RFC 6265 section 4.1.1). Clients may or
/// may not send the quotes back, so they carry no information.
pub fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// Splits a `Set-Cookie` value into name, value and the rest from the first semicolon on, as clients do (RFC
/// 6265 section 5.2). Returns `None` without `=`: such a value sets no named cookie.
pub fn split_set_cookie(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = memchr::memchr(b';', line).unwrap_or(line.len());
    let (pair, attributes) = line.split_at_checked(end)?;
    let (name, value) = pair.split_at_checked(memchr::memchr(b'=', pair)?)?;
    Some((trim(name), trim(value.get(1..)?), attributes))
}

/// Replaces the value of every cookie called `name` by the part that `keep` returns. `keep` gets the value
/// without surrounding quotes; the quotes are kept. Everything else stays byte for byte.
pub fn shorten_cookie(headers: &mut HeaderMap, name: &str, keep: impl Fn(&[u8]) -> &[u8]) {
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).into_iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let shorter = parts(line.as_bytes()).map(|part| shortened(part, name.as_bytes(), &keep));
        let mut value = HeaderValue::from_bytes(&shorter.collect::<Vec<_>>().join(&b';')).unwrap_or(line);
        value.set_sensitive(true);
        headers.append(COOKIE, value);
    }
}

fn shortened(part: &[u8], name: &[u8], keep: impl Fn(&[u8]) -> &[u8]) -> Vec<u8> {
    let Some(value) = value_of(part, name) else { return part.to_vec() };
    let before = part.iter().position(|byte| *byte == b'=').and_then(|place| part.get(..=place));
    let inner = unquoted(value);
    let quote = if inner.len() < value.len() { &b"\""[..] } else { b"" };
    [before.unwrap_or_default(), quote, keep(inner), quote].concat()
}

/// Joins several `Cookie` lines into one, as HTTP/1.1 requires (RFC 9113 section 8.2.3). Otherwise the next
/// server might read only one of them or join them incorrectly.
pub fn join_lines(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).into_iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes).collect();
    // Cannot fail: bytes of valid header values are valid.
    if let Ok(mut line) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        line.set_sensitive(true);
        headers.insert(COOKIE, line);
    }
}

/// `line` without the cookies called `name`. Returns `None` when no cookie is left.
fn without(line: &HeaderValue, name: &[u8]) -> Option<HeaderValue> {
    if parts(line.as_bytes()).all(|part| value_of(part, name).is_none()) {
        return Some(line.clone());
    }
    let kept: Vec<&[u8]> = parts(line.as_bytes()).filter(|part| value_of(part, name).is_none()).collect();
    if kept.iter().all(|part| part.trim_ascii().is_empty()) {
        return None;
    }
    let mut value = HeaderValue::from_bytes(kept.join(&b';').trim_ascii_start()).ok()?;
    value.set_sensitive(line.is_sensitive());
    Some(value)
}

/// Splits `line` at semicolons.
fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        match memchr::memchr(b';', text) {
            Some(at) => {
                let (part, tail) = text.split_at(at);
                rest = tail.get(1..);
                Some(part)
            }
            None => Some(text),
        }
    })
}

/// The value of `part` if it is a cookie called `name`.
fn value_of<'a>(part: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let tail = trim(part).strip_prefix(name)?;
    trim(tail).strip_prefix(b"=").map(trim)
}

/// Trims ASCII white space. Header values contain no white space other than spaces and tabs (RFC 9110 section
/// 5.5).
fn trim(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (COOKIE, HeaderValue::from_str(line).unwrap())).collect()
    }

    fn values(lines: &[&str], name: &str) -> Vec<String> {
        let headers = headers(lines);
        cookie_values(&headers, name).map(|v| String::from_utf8(v.to_vec()).unwrap()).collect()
    }

    fn removed(lines: &[&str], name: &str) -> Vec<String> {
        let mut headers = headers(lines);
        remove_cookie(&mut headers, name);
        headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_value_is_shortened_and_everything_else_stays() {
        let mut headers = headers(&["a=1; SID = abc~xyz ;b=~2", "SID=q; SID=\"r~s\""]);
        shorten_cookie(&mut headers, "SID", |value| value.split(|byte| *byte == b'~').next().unwrap());
        let lines: Vec<_> = headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(lines, ["a=1; SID =abc;b=~2", "SID=q; SID=\"r\""]);
    }

    #[test]
    fn only_a_pair_of_quotes_is_taken_off() {
        for (value, inner) in [
            ("\"a b\"", "a b"),
            ("\"\"", ""),
            ("\"", "\""),
            ("\"a", "\"a"),
            ("a\"", "a\""),
            ("a", "a"),
            ("\"\"a\"\"", "\"a\""),
            ("", ""),
        ] {
            assert_eq!(unquoted(value.as_bytes()), inner.as_bytes(), "{value}");
        }
    }

    #[test]
    fn a_set_cookie_line_is_read_as_clients_read_it() {
        let split = |line: &'static str| {
            let text = |part: &'static [u8]| str::from_utf8(part).unwrap();
            split_set_cookie(line.as_bytes()).map(|(name, value, rest)| (text(name), text(value), text(rest)))
        };
        assert_eq!(split("SID=abc; Path=/"), Some(("SID", "abc", "; Path=/")));
        assert_eq!(split(" SID = \"a=b\" ;HttpOnly"), Some(("SID", "\"a=b\"", ";HttpOnly")));
        assert_eq!(split("SID="), Some(("SID", "", "")));
        assert_eq!(split("SID; a=b"), None);
    }

    #[test]
    fn values_are_found_on_every_line_in_order() {
        assert_eq!(values(&["a=1; id=x", "id=y;b=2", "id=x"], "id"), ["x", "y", "x"]);
    }

    #[test]
    fn names_match_whole_and_exactly() {
        let lines = ["xid=1; ID=2; idx=3; id; =id; x=id=4; \"id\"=5"];
        assert_eq!(values(&lines, "id"), Vec::<String>::new());
    }

    #[test]
    fn values_keep_quotes_and_equals_signs_and_lose_outer_spaces() {
        assert_eq!(values(&["id=\"a b\"; id=a=b ;\tid = c ; id="], "id"), ["\"a b\"", "a=b", "c", ""]);
    }

    #[test]
    fn removal_keeps_all_others_as_they_were() {
        assert_eq!(removed(&["a=1; id=x; b = \"2\" ;c", "d=4;id=y"], "id"), ["a=1; b = \"2\" ;c", "d=4"]);
        assert_eq!(removed(&["id=x; b=2"], "id"), ["b=2"]);
    }

    #[test]
    fn removal_drops_lines_in_which_nothing_is_left() {
        assert_eq!(removed(&["id=x", "a=1", "id=y; ;"], "id"), ["a=1"]);
        assert_eq!(removed(&["id=x"], "id"), Vec::<String>::new());
    }

    #[test]
    fn removal_leaves_requests_without_the_cookie_alone() {
        assert_eq!(removed(&[" ; ", "a=1;; b", "x=id=1"], "id"), [" ; ", "a=1;; b", "x=id=1"]);
    }

    #[test]
    fn removal_keeps_lines_marked_sensitive() {
        let mut headers = headers(&["a=1; id=x"]);
        headers.get_mut(COOKIE).unwrap().set_sensitive(true);
        remove_cookie(&mut headers, "id");
        assert!(headers.get(COOKIE).unwrap().is_sensitive());
    }

    /// Reference implementation: name and value of each cookie.
    fn cookies(headers: &HeaderMap) -> Vec<(String, String)> {
        let lines = headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap().to_owned());
        lines
            .flat_map(|line| line.split(';').map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|part| part.split_once('=').map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())))
            .collect()
    }

    proptest! {
        #[test]
        fn reading_agrees_with_a_naive_reader(lines in proptest::collection::vec("[ab=; \"\t]{0,24}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let expected: Vec<String> = cookies(&headers(&lines))
                .into_iter()
                .filter_map(|(name, value)| (name == "a").then_some(value))
                .collect();
            prop_assert_eq!(values(&lines, "a"), expected);
        }

        #[test]
        fn removal_takes_exactly_the_named_cookies(lines in proptest::collection::vec("[ab=; \"\t]{0,24}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut map = headers(&lines);
            let expected: Vec<_> = cookies(&map).into_iter().filter(|(name, _)| name != "a").collect();
            remove_cookie(&mut map, "a");
            prop_assert_eq!(cookies(&map), expected);
        }

        #[test]
        fn joining_keeps_every_cookie_in_order(lines in proptest::collection::vec("[ab=; \"\t]{0,24}", 0..4)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut map = headers(&lines);
            let before = cookies(&map);
            join_lines(&mut map);
            prop_assert_eq!(cookies(&map), before);
            prop_assert_eq!(map.get_all(COOKIE).iter().count(), lines.len().min(1));
        }

        #[test]
        fn no_bytes_make_reading_or_changing_panic(lines in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(b';'), Just(b'='), Just(b'a'), any::<u8>()], 0..24), 0..4
        )) {
            let valid = lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
            let mut map: HeaderMap = valid.map(|line| (COOKIE, line)).collect();
            let named = cookie_values(&map, "a").count();
            join_lines(&mut map);
            prop_assert_eq!(cookie_values(&map, "a").count(), named);
            remove_cookie(&mut map, "a");
            prop_assert_eq!(cookie_values(&map, "a").count(), 0);
        }
    }
}
