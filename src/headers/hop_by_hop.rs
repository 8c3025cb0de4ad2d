//! Hop-by-hop headers, which apply to one connection and are not forwarded (RFC 9110 section 7.6.1).

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, TE, UPGRADE};
use http::{HeaderMap, HeaderValue, Version};

/// Always hop-by-hop, whether `Connection` names them or not.
pub const NAMES: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Not removed when `Connection` names them: without them the message would have a different meaning.
static NEVER_NOMINATED: [HeaderName; 4] = [HOST, CONTENT_LENGTH, COOKIE, AUTHORIZATION];

/// Information from hop-by-hop headers that the next hop needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hop {
    /// The sender requests or accepts a switch to the WebSocket protocol.
    pub websocket: bool,
    /// The sender accepts trailer fields (`TE: trailers`).
    pub trailers: bool,
}

/// Reads the hop-by-hop headers of a message of `version` and removes the headers that `Connection` names.
/// The fixed [`NAMES`] are left for the caller to remove.
pub fn take_nominated(headers: &mut HeaderMap, version: Version) -> Hop {
    if version != Version::HTTP_2 && says_nothing(headers) {
        return Hop::default();
    }
    let hop = Hop {
        websocket: version == Version::HTTP_11 && asks_for_websocket(headers),
        trailers: tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers")),
    };
    for name in nominated(headers) {
        headers.remove(name);
    }
    hop
}

/// Fast path: whether there is no `Connection` header, or only the common `keep-alive`.
fn says_nothing(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONNECTION).iter();
    match lines.next() {
        None => true,
        Some(line) => lines.next().is_none() && line.as_bytes().eq_ignore_ascii_case(b"keep-alive"),
    }
}

/// Whether the headers request or accept the WebSocket protocol and no other.
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    if !headers.contains_key(UPGRADE) {
        return false;
    }
    let mut protocols = tokens(headers, &UPGRADE);
    protocols.next().is_some_and(|one| one.eq_ignore_ascii_case("websocket"))
        && protocols.next().is_none()
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
}

fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !NEVER_NOMINATED.contains(name) && headers.contains_key(name))
        .collect()
}

/// The comma-separated elements of all lines of one header. A line that is not visible ASCII is skipped.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Sets the headers that request or accept the WebSocket protocol on the next hop.
pub fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn every_connection_line_is_read() {
        let mut map = headers(&[
            ("connection", "close, x-a"),
            ("connection", "x-b"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("x-c", "3"),
        ]);
        take_nominated(&mut map, Version::HTTP_11);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["connection", "x-c"]);
    }

    #[test]
    fn framing_host_and_credentials_cannot_be_nominated_away() {
        let mut map = headers(&[
            ("connection", "host, content-length, cookie, authorization"),
            ("host", "h"),
            ("content-length", "3"),
            ("cookie", "a=b"),
            ("authorization", "x"),
        ]);
        take_nominated(&mut map, Version::HTTP_11);
        assert_eq!(map.keys_len(), 5);
    }

    #[test]
    fn only_a_lone_websocket_in_http_1_1_is_an_upgrade() {
        let ask = |upgrade, connection, version| {
            take_nominated(&mut headers(&[("upgrade", upgrade), ("connection", connection)]), version)
                .websocket
        };
        assert!(ask("WebSocket", "keep-alive, Upgrade", Version::HTTP_11));
        assert!(!ask("websocket", "keep-alive", Version::HTTP_11));
        assert!(!ask("h2c", "upgrade", Version::HTTP_11));
        assert!(!ask("websocket, h2c", "upgrade", Version::HTTP_11));
        assert!(!ask("websocket", "upgrade", Version::HTTP_10));
    }

    const NAMED: [&str; 6] = ["x-a", "X-B", "host", "x-user-id", "te", "not there"];

    proptest! {
        #[test]
        fn what_any_line_names_goes_and_nothing_else(lines in vec(vec(select(&NAMED[..]), 0..4), 1..4)) {
            let there = ["x-a", "x-b", "x-c", "x-user-id", "host"];
            let mut map: HeaderMap =
                there.iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
            for line in &lines {
                map.append(CONNECTION, HeaderValue::from_str(&line.join(" ,\t")).unwrap());
            }
            take_nominated(&mut map, Version::HTTP_11);
            for name in there {
                let named = lines.concat().iter().any(|other| other.eq_ignore_ascii_case(name));
                prop_assert_eq!(map.contains_key(name), name == "host" || !named, "{}", name);
            }
        }

        #[test]
        fn no_bytes_make_reading_panic(lines in vec(vec(any::<u8>(), 0..24), 0..3)) {
            let mut map = HeaderMap::new();
            for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                for name in [CONNECTION, TE, UPGRADE] {
                    map.append(name, value.clone());
                }
            }
            take_nominated(&mut map, Version::HTTP_11);
        }
    }
}
