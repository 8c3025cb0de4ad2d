//! Where the sessions are: `memory:`, `redis://` or `rediss://`.
//!
//! A URL may hold a password: no fault quotes any part of it but a scheme from a fixed list.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str;

use super::http_text::domain;
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::model::StoreKind;
use crate::config::reference::resolve;
use crate::config::value::text;
use crate::secret::Secret;

const ANOTHER_STORE: &str =
    "write \"memory:\" or \"redis://user:password@host:port/db\"; with TLS \"rediss://…\"";

/// Schemes that people bring along.
const UNSUPPORTED: [&str; 12] = [
    "redis+sentinel",
    "redis-sentinel",
    "redis+cluster",
    "redis-cluster",
    "redis+unix",
    "unix",
    "valkey",
    "valkeys",
    "memcached",
    "postgres",
    "mysql",
    "sqlite",
];

/// A checked URL.
#[derive(Debug)]
pub(super) struct StoreUrl {
    pub(super) kind: StoreKind,
    pub(super) is_tls: bool,
}

impl StoreUrl {
    pub(super) const MEMORY: StoreUrl = StoreUrl { kind: StoreKind::Memory, is_tls: false };
}

/// A URL or a reference to one.
pub(super) fn store_url(node: &Node) -> Result<StoreUrl, Fault> {
    let read = || match text(node).map(|text| (text, resolve(text)))? {
        (text, None) => parse(text),
        (_, Some(secret)) => match String::from_utf8(secret?) {
            Ok(url) => parse(&url),
            Err(_) => Err(malformed("what it refers to is not text")),
        },
    };
    read().map_err(|fault| Fault { hidden: true, ..fault })
}

fn parse(url: &str) -> Result<StoreUrl, Fault> {
    if url == "memory:" {
        return Ok(StoreUrl::MEMORY);
    }
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    if UNSUPPORTED.contains(&scheme) {
        return Err(unsupported(scheme));
    }
    let rest = match url.split_once("://") {
        Some(("redis" | "rediss", rest)) => rest,
        _ => return Err(malformed("it begins with no scheme that is known here")),
    };
    check(rest).map_err(malformed)?;
    Ok(StoreUrl { kind: StoreKind::Redis(Secret::new(url.to_owned())), is_tls: scheme == "rediss" })
}

/// `Err` tells what is wrong with what follows `redis://`, without quoting it.
fn check(rest: &str) -> Result<(), &'static str> {
    if !rest.chars().all(|c| c.is_ascii_graphic()) {
        return Err("it holds a space, a control character or a letter beyond ASCII");
    }
    if rest.contains(['?', '#']) {
        return Err("it holds `?` or `#`, and there are no options to set that way");
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    if !database.is_empty() && !is_number(database, 1_000_000) {
        return Err("after the address there is something else than the number of a database");
    }
    let (user_info, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !is_percent_encoded(user_info) {
        return Err("user or password is not percent-encoded UTF-8");
    }
    check_address(address)
}

fn check_address(address: &str) -> Result<(), &'static str> {
    // The colon of a port follows the bracket of an IPv6 address.
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    if port.is_some_and(|port| port == "0" || !is_number(port, 65_535)) {
        return Err("the port is not a number from 1 to 65535");
    }
    if host.is_empty() {
        return Err("it names no host");
    }
    if !is_host(host) {
        return Err("the host is neither a name nor an address to connect to; IPv6 stands in brackets");
    }
    Ok(())
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return address.is_some_and(|address| !address.is_unspecified());
    }
    // A name that ends in a number is read as an IPv4 address by everyone.
    let is_numeric = host.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    match is_numeric {
        true => host.parse::<Ipv4Addr>().is_ok_and(|address| !address.is_unspecified()),
        false => domain(host).is_some(),
    }
}

fn is_number(text: &str, max: u32) -> bool {
    text.chars().all(|c| c.is_ascii_digit()) && text.parse::<u32>().is_ok_and(|number| number <= max)
}

/// Whether every `%` begins an encoded byte and the whole decodes to UTF-8.
fn is_percent_encoded(text: &str) -> bool {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
        let Some(byte) = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
            return false;
        };
        bytes.push(byte);
        bytes.extend(part.bytes().skip(2));
    }
    str::from_utf8(&bytes).is_ok()
}

fn malformed(what: &'static str) -> Fault {
    let help = format!("{ANOTHER_STORE}; percent-encode `/ ? # @ :` in a password");
    Fault::new(format!("the store's URL is not well formed: {what}"), "no session could be read", help)
}

fn unsupported(scheme: &str) -> Fault {
    let what = format!("stores of the kind `{scheme}` are not supported");
    let help = match scheme.contains("sentinel") || scheme.contains("cluster") {
        true => format!("name one server, or an address that always leads to the primary: {ANOTHER_STORE}"),
        false => ANOTHER_STORE.to_owned(),
    };
    Fault::new(what, "no session could be read", help)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn well_formed_urls_are_accepted() {
        let urls = [
            "redis://localhost",
            "redis://127.0.0.1:6379/0",
            "redis://127.0.0.1:6379/",
            "rediss://user:p%40ss@cache.example.com:6380/12",
            "redis://:pw@[::1]:6379",
            "redis://:p@w@[fd00::1]",
        ];
        for url in urls {
            let parsed = parse(url).unwrap();
            assert_eq!(parsed.is_tls, url.starts_with("rediss"), "{url}");
            assert!(matches!(parsed.kind, StoreKind::Redis(secret) if secret.expose() == url));
        }
        assert!(matches!(parse("memory:"), Ok(StoreUrl { kind: StoreKind::Memory, is_tls: false })));
    }

    #[test]
    fn malformed_urls_are_refused_without_being_quoted() {
        let cases = [
            ("hunter2", "it begins with no scheme that is known here"),
            ("http://hunter2@h", "it begins with no scheme that is known here"),
            ("redis:hunter2", "it begins with no scheme that is known here"),
            ("redis://:hunter2@", "it names no host"),
            ("redis://:hunter2@:6379", "it names no host"),
            ("redis://:hunter2@h:0", "the port is not a number from 1 to 65535"),
            ("redis://:hunter2@h:", "the port is not a number from 1 to 65535"),
            ("redis://:hunter2@h:65536", "the port is not a number from 1 to 65535"),
            ("redis://:hunter2@h:+1", "the port is not a number from 1 to 65535"),
            (
                "redis://:hunter2@h/x",
                "after the address there is something else than the number of a database",
            ),
            (
                "redis://:hunter2@h/0#insecure",
                "it holds `?` or `#`, and there are no options to set that way",
            ),
            ("redis://:hunter2 @h", "it holds a space, a control character or a letter beyond ASCII"),
            ("redis://:hunter2%zz@h", "user or password is not percent-encoded UTF-8"),
            ("redis://:hunter2%ff@h", "user or password is not percent-encoded UTF-8"),
        ];
        for (url, expected) in cases {
            let fault = parse(url).unwrap_err();
            assert_eq!(fault.what, format!("the store's URL is not well formed: {expected}"), "{url}");
            assert!(!format!("{fault:?}").contains("hunter2"), "{fault:?}");
        }
        for host in ["0.0.0.0", "[::]", "1.2.3", "::1", "[::1", "a..b", "h,i"] {
            let fault = parse(&format!("redis://{host}")).unwrap_err();
            assert!(!fault.help.is_empty(), "{host}");
        }
    }

    #[test]
    fn stores_that_are_not_supported_are_named() {
        let fault = parse("redis+sentinel://:hunter2@h/mymaster").unwrap_err();
        assert_eq!(fault.what, "stores of the kind `redis+sentinel` are not supported");
        assert!(fault.help.starts_with("name one server"), "{}", fault.help);
        assert!(!format!("{fault:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_url_makes_the_parser_panic_or_is_quoted(noise in "[ -~é]{0,20}") {
            let url = format!("redis://:hunter2@{noise}");
            if let Err(fault) = parse(&url) {
                let shown = format!("{fault:?}");
                prop_assert!(!shown.contains("hunter2"), "{}", shown);
            }
        }
    }
}
