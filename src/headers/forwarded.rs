//! Forwarding headers: reading the client's origin and writing it for the upstream.
//!
//! Only *trusted* peers (proxies configured by the operator) are taken into account. Addresses are read from
//! right to left, because every proxy appends on the right: the first address that is not trusted is the
//! client.

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use super::hop_by_hop::tokens;

pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub static X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether `address` lies in one of the `trusted` networks. An IPv4-mapped IPv6 address counts as IPv4.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    !trusted.is_empty() && {
        let address = address.to_canonical();
        trusted.iter().any(|net| net.contains(&address))
    }
}

/// The client's address behind a trusted peer: the first untrusted address from the right over all
/// `X-Forwarded-For` lines. If all are trusted, the leftmost one. If an element is not an address, the last
/// valid one before it.
pub fn client_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    find_client(headers, peer, trusted).0
}

/// The client's address, and the number of `X-Forwarded-For` elements from the right up to it.
fn find_client(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> (IpAddr, usize) {
    let (mut client, mut hops) = (peer, 0);
    let elements: Vec<&str> = tokens(headers, &X_FORWARDED_FOR).collect();
    for element in elements.into_iter().rev() {
        let Some(address) = parse_address(element) else { break };
        (client, hops) = (address, hops + 1);
        if !is_trusted(address, trusted) {
            break;
        }
    }
    (client, hops)
}

/// Parses an address with or without brackets and port, as found in `X-Forwarded-For`.
fn parse_address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
        return Some(socket.ip());
    }
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Whether the client used https, according to a trusted peer. In a list, the element written by the same
/// proxy as the client's address counts (see [`client_address`]); in a shorter list, the first. Returns
/// `None` for a missing or unknown value.
pub fn claimed_https(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Option<bool> {
    let words: Vec<&str> = tokens(headers, &X_FORWARDED_PROTO).collect();
    let hops = if words.len() > 1 { find_client(headers, peer, trusted).1.max(1) } else { 1 };
    match words.get(words.len().saturating_sub(hops)) {
        Some(value) if value.eq_ignore_ascii_case("https") => Some(true),
        Some(value) if value.eq_ignore_ascii_case("http") => Some(false),
        _ => None,
    }
}

/// The request id of a trusted peer, if it is safe to log and forward: 1 to 128 visible ASCII characters.
pub fn claimed_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let value = headers.get(&X_REQUEST_ID)?;
    let fit = (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    fit.then_some(value)
}

/// Appends `element` to a comma-separated list header and keeps the existing elements.
pub fn append(headers: &mut HeaderMap, name: &HeaderName, element: &HeaderValue) {
    let mut list: Vec<u8> = Vec::new();
    for line in headers.get_all(name).iter().filter(|line| !line.is_empty()) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        headers.insert(name.clone(), element.clone());
        return;
    }
    list.extend_from_slice(element.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&list) {
        headers.insert(name.clone(), value);
    }
}

/// One `Forwarded` element (RFC 7239 section 4) for a client at `address` that requested `host`.
pub fn forwarded_element(address: IpAddr, https: bool, host: &str) -> Option<HeaderValue> {
    let node = match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    let proto = if https { "https" } else { "http" };
    HeaderValue::try_from(format!("for={node};proto={proto};host=\"{host}\"")).ok()
}

/// Appends [`forwarded_element`] to `Forwarded`.
pub fn append_forwarded(headers: &mut HeaderMap, address: IpAddr, https: bool, host: &str) {
    if let Some(element) = forwarded_element(address, https, host) {
        append(headers, &FORWARDED, &element);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn client(lines: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        client_address(&headers, "10.0.0.1".parse().unwrap(), &nets(trusted)).to_string()
    }

    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        assert_eq!(client(&["6.6.6.6, 7.7.7.7", "10.0.0.2"], &["10.0.0.0/8"]), "7.7.7.7");
        assert_eq!(client(&["10.0.0.9, 10.0.0.2"], &["10.0.0.0/8"]), "10.0.0.9");
        assert_eq!(client(&["evil, 10.0.0.2"], &["10.0.0.0/8"]), "10.0.0.2");
        assert_eq!(client(&["[2001:db8::1]:443"], &["10.0.0.0/8"]), "2001:db8::1");
        assert_eq!(client(&[], &["10.0.0.0/8"]), "10.0.0.1");
    }

    #[test]
    fn a_mapped_address_is_the_address_it_maps() {
        assert!(is_trusted("::ffff:10.1.2.3".parse().unwrap(), &nets(&["10.0.0.0/8"])));
        assert!(!is_trusted("10.1.2.3".parse().unwrap(), &[]));
    }

    #[test]
    fn the_protocol_is_the_one_that_the_client_used_with_the_first_trusted_proxy() {
        let https = |protocols: &str, addresses: &str| {
            let mut headers = HeaderMap::new();
            headers.append(&X_FORWARDED_PROTO, HeaderValue::from_str(protocols).unwrap());
            headers.append(&X_FORWARDED_FOR, HeaderValue::from_str(addresses).unwrap());
            claimed_https(&headers, "10.0.0.1".parse().unwrap(), &nets(&["10.0.0.0/8"]))
        };
        assert_eq!(https("https, http", "1.2.3.4, 10.0.0.2"), Some(true));
        assert_eq!(https("https,http , http", "1.2.3.4, 10.0.0.3, 10.0.0.2"), Some(true));
        assert_eq!(https("https", "1.2.3.4, 10.0.0.2"), Some(true));
        assert_eq!(https("https, http", "9.9.9.9, 1.2.3.4, 10.0.0.2"), Some(true));
        // Elements written by the client itself are ignored.
        assert_eq!(https("https, http", "1.2.3.4"), Some(false));
        assert_eq!(https("https, http, http", "9.9.9.9, 1.2.3.4, 10.0.0.2"), Some(false));
        assert_eq!(https("https, http", ""), Some(false));
        assert_eq!(https("", "1.2.3.4"), None);
    }

    #[test]
    fn appending_keeps_earlier_elements_in_order() {
        let mut headers = HeaderMap::new();
        headers.append(&X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1"));
        headers.append(&X_FORWARDED_FOR, HeaderValue::from_static("2.2.2.2"));
        append(&mut headers, &X_FORWARDED_FOR, &HeaderValue::from_static("3.3.3.3"));
        assert_eq!(headers.get_all(&X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[&X_FORWARDED_FOR], "1.1.1.1, 2.2.2.2, 3.3.3.3");
    }

    #[test]
    fn an_ipv6_node_is_bracketed_and_quoted() {
        let element = forwarded_element("2001:db8::1".parse().unwrap(), true, "h:8443").unwrap();
        assert_eq!(element, "for=\"[2001:db8::1]\";proto=https;host=\"h:8443\"");
    }

    const ELEMENTS: [&str; 9] = [
        "10.0.0.2",
        "10.9.9.9:80",
        "::ffff:10.0.0.3",
        "6.6.6.6",
        "[2001:db8::1]:443",
        "[::1]",
        "unknown",
        "",
        "\t",
    ];

    proptest! {
        #[test]
        fn everything_to_the_right_of_the_client_is_a_trusted_proxy(lines in vec(vec(select(&ELEMENTS[..]), 0..4), 0..4)) {
            let all = lines.concat();
            let written: Vec<&str> = all.iter().copied().filter(|element| !element.trim().is_empty()).collect();
            let addresses: Vec<_> = written.iter().map(|element| parse_address(element)).collect();
            let trusted = nets(&["10.0.0.0/8"]);
            let is_proxy = |address: &Option<IpAddr>| address.is_some_and(|address| is_trusted(address, &trusted));
            let proxies = addresses.iter().rev().take_while(|address| is_proxy(address)).count();
            let beyond = addresses.len() - proxies;
            let peer = Some("10.0.0.1".parse().unwrap());
            let nearest_proxy = addresses.get(beyond).copied().unwrap_or(peer);
            let expected = match beyond.checked_sub(1).map(|last| addresses[last]) {
                Some(Some(address)) => Some(address),
                Some(None) | None => nearest_proxy,
            };
            let lines: Vec<String> = lines.iter().map(|elements| elements.join(" ,")).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(client(&lines, &["10.0.0.0/8"]), expected.unwrap().to_string());
        }

        #[test]
        fn no_bytes_make_reading_panic(lines in vec(vec(any::<u8>(), 0..40), 0..3)) {
            let mut headers = HeaderMap::new();
            for value in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
                for name in [&X_FORWARDED_FOR, &X_FORWARDED_PROTO, &X_REQUEST_ID] {
                    headers.append(name, value.clone());
                }
            }
            let (peer, nets) = (IpAddr::from([10, 0, 0, 1]), nets(&["10.0.0.0/8"]));
            let _ = (client_address(&headers, peer, &nets), claimed_https(&headers, peer, &nets));
            if let Some(id) = claimed_request_id(&headers) {
                prop_assert!(id.to_str().is_ok_and(|id| !id.contains(char::is_whitespace)));
            }
        }
    }
}
