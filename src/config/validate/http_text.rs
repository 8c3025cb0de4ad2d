//! Texts with HTTP syntax: cookie attributes, targets, locations, hosts.

use std::net::Ipv6Addr;

use http::header::HeaderValue;
use http::uri::{PathAndQuery, Uri};

use super::header;
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::value::text;

/// A cookie name: an RFC 6265 token.
pub(super) fn cookie_name(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    if is_cookie_name(text) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a cookie name"),
        "browsers would drop or misread the cookie",
        "use letters, digits, `-` and `_`",
    ))
}

pub(super) fn is_cookie_name(text: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.chars().all(is_token)
}

/// The `Path` attribute of a cookie.
pub(super) fn cookie_path(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    let fits = |c: char| c != ';' && (c == ' ' || c.is_ascii_graphic());
    // Browsers ignore longer attributes (RFC 6265bis section 5.6).
    if text.starts_with('/') && text.len() <= 1024 && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a cookie path"),
        "browsers would take another path instead",
        "begin it with `/` and leave out `;`",
    ))
}

/// The `Domain` attribute of a cookie.
pub(super) fn cookie_domain(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    domain(text).ok_or_else(|| {
        Fault::new(
            format!("{text:?} is not a domain"),
            "browsers would drop the cookie",
            "write a domain, such as \"example.com\", or leave the key out",
        )
    })
}

/// An origin-form target: path and query.
pub(super) fn target(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    let valid = text.starts_with('/') && !text.contains('#') && text.parse::<PathAndQuery>().is_ok();
    if valid {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a path"),
        "it cannot be asked for",
        "begin it with `/` and percent-encode what is not allowed in a URL",
    ))
}

/// A redirect location: a path on the same host or an http(s) URL.
pub(super) fn location(text: &str) -> Result<HeaderValue, Fault> {
    let is_path = text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\");
    let is_url = || {
        let uri = text.parse::<Uri>().ok();
        uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
    };
    let visible = text.chars().all(|c| c.is_ascii_graphic());
    if visible && (is_path || is_url()) {
        return header::value(text);
    }
    Err(Fault::new(
        format!("{text:?} is not a place to redirect to"),
        "browsers would go elsewhere or nowhere",
        "write a path such as \"/signin\" or an http(s) URL; percent-encode other characters",
    ))
}

/// A domain name in lower case; no port, no trailing dot.
pub(in crate::config) fn domain(text: &str) -> Option<String> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(is_letter);
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_ascii_lowercase())
}

/// A host as in the `Host` header, in lower case and without port; IPv6 in brackets.
pub(super) fn host(text: &str) -> Option<String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match inner.parse::<Ipv6Addr>() {
        Ok(address) => Some(format!("[{address}]")),
        Err(_) => domain(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_held_as_clients_send_them() {
        let cases = [
            ("App.Example.COM", Some("app.example.com")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("[::1]", Some("[::1]")),
            ("FD00:0:0::1", Some("[fd00::1]")),
            ("", None),
            ("a..b", None),
            ("example.com.", None),
            ("example.com:80", None),
            ("[::1]:80", None),
            ("exämple.com", None),
            ("[example.com]", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn redirects_lead_to_a_path_or_an_http_url() {
        for good in ["/", "/signin?next=1#top", "https://id.example.com/login", "http://[::1]:80"] {
            assert_eq!(location(good).unwrap(), good);
        }
        for bad in [
            "",
            "signin",
            "//evil.example",
            "/\\evil",
            "ftp://x/",
            "https://",
            "/a b",
            "/a\r\nb",
            "/ä",
            "javascript:x",
        ] {
            assert!(location(bad).is_err(), "{bad}");
        }
    }
}
