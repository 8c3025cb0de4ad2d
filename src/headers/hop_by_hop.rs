//! Headers that belong to one connection and end at this hop (RFC 9110 section 7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, PROXY_AUTHENTICATE, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Version};

/// Always hop-by-hop, whether `Connection` names them or not.
static ALWAYS: [HeaderName; 7] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Not removable by naming them in `Connection`: without them the message would mean something else.
static NEVER_NOMINATED: [HeaderName; 4] = [HOST, CONTENT_LENGTH, COOKIE, AUTHORIZATION];

/// What the hop's headers said that the next hop needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The sender asks to switch to, or agrees on, the WebSocket protocol.
    pub websocket: bool,
    /// The sender accepts trailer fields (`TE: trailers`).
    pub trailers: bool,
}

/// Removes the hop-by-hop headers of a message that came as `version`: the fixed list and whatever any
/// `Connection` line names.
pub fn strip(headers: &mut HeaderMap, version: Version) -> Hop {
    let hop = Hop {
        websocket: version == Version::HTTP_11 && asks_for_websocket(headers),
        trailers: tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers")),
    };
    if headers.contains_key(CONNECTION) {
        for name in nominated(headers) {
            headers.remove(name);
        }
    }
    for name in &ALWAYS {
        headers.remove(name);
    }
    hop
}

fn asks_for_websocket(headers: &HeaderMap) -> bool {
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

/// The comma-separated elements of all lines of one header; a line that is not visible ASCII has none.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Writes the headers that ask for, or agree on, the WebSocket protocol on the next hop.
pub fn set_websocket(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

#[cfg(test)]
mod tests {
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
        strip(&mut map, Version::HTTP_11);
        assert_eq!(map.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-c"]);
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
        strip(&mut map, Version::HTTP_11);
        assert_eq!(map.len(), 4);
    }

    #[test]
    fn only_a_lone_websocket_in_http_1_1_is_an_upgrade() {
        let ask = |upgrade, connection, version| {
            strip(&mut headers(&[("upgrade", upgrade), ("connection", connection)]), version).websocket
        };
        assert!(ask("WebSocket", "keep-alive, Upgrade", Version::HTTP_11));
        assert!(!ask("websocket", "keep-alive", Version::HTTP_11));
        assert!(!ask("h2c", "upgrade", Version::HTTP_11));
        assert!(!ask("websocket, h2c", "upgrade", Version::HTTP_11));
        assert!(!ask("websocket", "upgrade", Version::HTTP_10));
    }
}
