//! The requested host, and the validation of the request target for routing.

use std::borrow::Cow;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header};

/// Reason why a request cannot be routed. All are client errors (400).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("the request has no Host")]
    NoHost,
    #[error("the request has more than one Host")]
    SeveralHosts,
    #[error("the Host is not a host name with an optional port")]
    BadHost,
    #[error("the host of the request target and the Host header differ")]
    HostMismatch,
    #[error("the scheme of the request target is not http or https")]
    Scheme,
    #[error("the request target is not a path")]
    NotAPath,
    #[error("the path has a dot segment, a backslash, a control character or a broken percent-encoding")]
    UnsafePath,
}

/// The requested host and optional port. If the target has an authority (HTTP/2, absolute form), it is used
/// and `Host` must equal it (RFC 9112 section 3.2.2). Otherwise the single `Host` line is used. In HTTP/1.0
/// both may be missing; the result is then empty.
pub fn authority<'a>(
    headers: &'a HeaderMap,
    uri: &'a Uri,
    version: Version,
) -> Result<HostPort<'a>, TargetError> {
    if uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(TargetError::Scheme);
    }
    let mut lines = headers.get_all(header::HOST).iter();
    let (line, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(TargetError::SeveralHosts);
    }
    let text = line.map(|line| line.to_str().map_err(|_| TargetError::BadHost)).transpose()?;
    let parse = |text| HostPort::parse(text, line).ok_or(TargetError::BadHost);
    match (uri.authority().map(Authority::as_str), text) {
        (Some(target), Some(host)) => {
            let (target, host) = (parse(target)?, parse(host)?);
            let are_equal = target.host.eq_ignore_ascii_case(host.host)
                && target.port_for(uri.scheme_str()) == host.port_for(uri.scheme_str());
            if are_equal { Ok(host) } else { Err(TargetError::HostMismatch) }
        }
        (Some(text), None) | (None, Some(text)) => parse(text),
        (None, None) if version == Version::HTTP_10 => Ok(HostPort { text: "", host: "", port: None, line }),
        (None, None) => Err(TargetError::NoHost),
    }
}

/// A host name or address with an optional port, as written by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// The whole text, without a trailing colon that has no port.
    pub text: &'a str,
    /// The host without the port. An IPv6 address keeps its brackets.
    pub host: &'a str,
    port: Option<u16>,
    /// The `Host` line, if there is one.
    pub line: Option<&'a HeaderValue>,
}

impl<'a> HostPort<'a> {
    /// Returns `None` when `text` is malformed.
    fn parse(text: &'a str, line: Option<&'a HeaderValue>) -> Option<Self> {
        let name_end =
            if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
        let (host, rest) = text.split_at_checked(name_end)?;
        let port = match rest.strip_prefix(':') {
            // RFC 3986 section 3.2.3: a port may be empty.
            Some("") => None,
            Some(digits) if digits.len() <= 5 && !digits.starts_with('+') => Some(digits.parse().ok()?),
            Some(_) => return None,
            None if rest.is_empty() => None,
            None => return None,
        };
        let text = if rest == ":" { host } else { text };
        is_host(host).then_some(HostPort { text, host, port, line })
    }

    /// The port, or the default port of `scheme` (RFC 9110 section 4.2.3).
    fn port_for(&self, scheme: Option<&str>) -> u16 {
        self.port.unwrap_or(if scheme == Some("https") { 443 } else { 80 })
    }
}

/// Whether `host` is a bracketed IPv6 address, or a name of letters, digits, `-`, `.`, `_` and `~`. RFC 3986
/// section 3.2.2 allows more characters without percent-encoding, but they do not occur in practice.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
            !host.is_empty() && host.bytes().all(good)
        }
    }
}

/// The path as the application may interpret it, for route lookup only: percent-encodings decoded, repeated
/// `/` merged. The forwarded path stays as the client wrote it.
#[derive(Debug, PartialEq, Eq)]
pub struct RoutingPath<'a> {
    /// The path with every percent-encoding decoded.
    pub decoded: Cow<'a, str>,
    /// Alternative interpretations on which applications disagree: with `%2F` left encoded, and without `;`
    /// parameters in segments. All must match the same route.
    pub others: Vec<String>,
}

/// Interprets the path of `uri` for routing. Rejects paths that servers are known to interpret differently.
/// `OPTIONS *` (RFC 9110 section 9.3.7) addresses the server as a whole and is routed like `/`.
pub fn routing_path<'a>(method: &Method, uri: &'a Uri) -> Result<RoutingPath<'a>, TargetError> {
    let path = match uri.path() {
        "*" if *method == Method::OPTIONS => "/",
        path => path,
    };
    if !path.starts_with('/') {
        return Err(TargetError::NotAPath);
    }
    if is_plain(path) {
        return Ok(RoutingPath { decoded: Cow::Borrowed(path), others: Vec::new() });
    }
    let decoded = normalise(path, true)?;
    let mut others = Vec::new();
    if path.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f")) {
        others.push(normalise(path, false)?);
    }
    if decoded.contains(';') {
        let without: Vec<String> =
            std::iter::once(&decoded).chain(&others).map(|path| without_parameters(path)).collect();
        others.extend(without);
    }
    Ok(RoutingPath { decoded: Cow::Owned(decoded), others })
}

/// Fast path: whether a path has a single interpretation. Nearly all paths do.
fn is_plain(path: &str) -> bool {
    let mut after_slash = false;
    path.bytes().all(|byte| {
        let odd = matches!(byte, b'%' | b'\\' | b';') || (after_slash && matches!(byte, b'/' | b'.'));
        after_slash = byte == b'/';
        byte.is_ascii_graphic() && !odd
    })
}

fn normalise(path: &str, decode_slash: bool) -> Result<String, TargetError> {
    let mut out = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match hex(bytes.next(), bytes.next())? {
                b'/' if !decode_slash => {
                    out.extend_from_slice(b"%2F");
                    continue;
                }
                decoded => decoded,
            },
            other if other.is_ascii_graphic() => other,
            _ => return Err(TargetError::UnsafePath),
        };
        if byte == b'\\' || byte.is_ascii_control() {
            return Err(TargetError::UnsafePath);
        }
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
    }
    // Invalid UTF-8 cannot equal a configured path, so the replacement character does not change the route.
    let text = String::from_utf8_lossy(&out).into_owned();
    if text.split('/').any(|segment| matches!(name_of(segment), "." | "..")) {
        return Err(TargetError::UnsafePath);
    }
    Ok(text)
}

/// A segment without its path parameters (RFC 3986 section 3.3).
fn name_of(segment: &str) -> &str {
    segment.split(';').next().unwrap_or(segment)
}

fn without_parameters(path: &str) -> String {
    path.split('/').map(name_of).collect::<Vec<_>>().join("/")
}

fn hex(high: Option<u8>, low: Option<u8>) -> Result<u8, TargetError> {
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    match (digit(high), digit(low)) {
        (Some(high), Some(low)) => u8::try_from(high * 16 + low).map_err(|_| TargetError::UnsafePath),
        _ => Err(TargetError::UnsafePath),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(hosts: &[&'static str], target: &'static str) -> Result<String, TargetError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        let uri = Uri::from_static(target);
        authority(&headers, &uri, Version::HTTP_11).map(|authority| authority.text.to_string())
    }

    fn path(target: &str) -> Result<(String, Vec<String>), TargetError> {
        let uri: Uri = target.parse().unwrap();
        routing_path(&Method::GET, &uri).map(|path| (path.decoded.into_owned(), path.others))
    }

    #[test]
    fn one_host_is_needed_and_only_one() {
        assert_eq!(ask(&["a.example:80"], "/"), Ok("a.example:80".into()));
        assert_eq!(ask(&["[::1]:80"], "/"), Ok("[::1]:80".into()));
        assert_eq!(ask(&[], "/"), Err(TargetError::NoHost));
        assert_eq!(ask(&["a", "a"], "/"), Err(TargetError::SeveralHosts));
        for bad in [
            "", "a,b", "u@a", "a/b", "a b", ":", "a::", "a:x", "a:+1", "a:65536", ":80", "[::1", "[x]",
            "[::1]x", "a:1:2",
        ] {
            assert_eq!(ask(&[bad], "/"), Err(TargetError::BadHost), "{bad}");
        }
    }

    #[test]
    fn an_absolute_target_must_agree_with_host() {
        assert_eq!(ask(&["a"], "http://a/x"), Ok("a".into()));
        assert_eq!(ask(&["b"], "http://a/x"), Err(TargetError::HostMismatch));
        for (host, target) in
            [("a", "http://A:80/"), ("a:80", "http://a/"), ("a:", "http://a/"), ("a", "https://a:443/")]
        {
            assert!(ask(&[host], target).is_ok(), "{host} {target}");
        }
        for (host, target) in [("a", "http://a:81/"), ("a", "https://a:80/"), ("a:443", "http://a/")] {
            assert_eq!(ask(&[host], target), Err(TargetError::HostMismatch), "{host} {target}");
        }
        assert_eq!(ask(&["a"], "ftp://a/"), Err(TargetError::Scheme));
        assert_eq!(ask(&[], "http://u@a/x"), Err(TargetError::BadHost));
    }

    #[test]
    fn encoded_paths_are_routed_by_what_they_mean() {
        assert_eq!(path("/a//b"), Ok(("/a/b".into(), vec![])));
        assert_eq!(path("/%61pi/x"), Ok(("/api/x".into(), vec![])));
        assert_eq!(path("/a%2fb"), Ok(("/a/b".into(), vec!["/a%2Fb".into()])));
        assert_eq!(path("/.well-known/x"), Ok(("/.well-known/x".into(), vec![])));
    }

    #[test]
    fn paths_that_servers_read_differently_are_refused() {
        for bad in [
            "/a/../b",
            "/a/%2e%2E/b",
            "/a/.",
            "/%5cx",
            "/%00",
            "/%zz",
            "/%2",
            "/a%2f..%2fb",
            "/x%0d%0a",
            "/a/..;/b",
            "/a/%2e;x/b",
        ] {
            assert_eq!(path(bad), Err(TargetError::UnsafePath), "{bad}");
        }
        let star = Uri::from_static("*");
        assert_eq!(routing_path(&Method::GET, &star), Err(TargetError::NotAPath));
        assert!(routing_path(&Method::OPTIONS, &star).is_ok_and(|path| path.decoded == "/"));
    }

    /// `path` with the characters selected by `chosen` percent-encoded, except slashes.
    fn encoded(path: &str, chosen: &[bool]) -> String {
        let encode = |(letter, chosen): (u8, &bool)| match *chosen && letter != b'/' {
            true => format!("%{letter:02x}"),
            false => char::from(letter).to_string(),
        };
        path.bytes().zip(chosen.iter().cycle()).map(encode).collect()
    }

    proptest! {
        #[test]
        fn a_path_is_routed_the_same_however_it_is_encoded(
            path in "(/[a-z0-9_-]{1,6}){1,4}", chosen in proptest::collection::vec(any::<bool>(), 1..24)
        ) {
            let uri: Uri = encoded(&path, &chosen).parse().unwrap();
            prop_assert_eq!(routing_path(&Method::GET, &uri), Ok(RoutingPath { decoded: Cow::Borrowed(&path), others: Vec::new() }));
        }

        #[test]
        fn an_accepted_host_is_a_name_or_address_and_a_port(text in "[a-zA-Z0-9.:@/\\[\\]+ _%-]{0,24}") {
            let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_str(&text).unwrap())]);
            let uri = Uri::from_static("/");
            if let Ok(HostPort { text: whole, host, .. }) = authority(&headers, &uri, Version::HTTP_11) {
                prop_assert_eq!(whole, text.strip_suffix(':').unwrap_or(&text));
                let port = whole.strip_prefix(host).unwrap();
                prop_assert!(port.is_empty() || port[1..].parse::<u16>().is_ok() && port.starts_with(':'));
                prop_assert!(!host.is_empty() && !host.contains(['@', '/', ' ', '%', '+']));
                prop_assert!(host.starts_with('[') || !host.contains([':', '[', ']']));
            }
        }

        #[test]
        fn no_bytes_make_reading_a_host_panic(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(header::HOST, value)]);
                let _ = authority(&headers, &Uri::from_static("/"), Version::HTTP_11);
            }
        }

        #[test]
        fn a_routing_path_never_holds_what_was_refused(raw in "/[ -~]{0,40}") {
            if let Ok(uri) = raw.parse::<Uri>()
                && let Ok(read) = routing_path(&Method::GET, &uri) {
                prop_assert!(!read.decoded.split('/').any(|part| part == "." || part == ".."));
                prop_assert!(!read.decoded.contains("//") && !read.decoded.contains('\\'));
            }
        }
    }
}
