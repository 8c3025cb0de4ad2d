//! Step 2 of the pipeline: request validation and header cleaning. Claims of the client about its identity or
//! origin are removed unless a trusted proxy made them.

use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use http_body::Body;

use crate::body::RequestBody;
use crate::config::{Config, ForwardedFor, Forwarding};
use crate::headers::forwarded::{
    self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO,
};
use crate::headers::forwarded::{X_REAL_IP, X_REQUEST_ID};
use crate::headers::hop_by_hop::{self, Hop};
use crate::headers::{cookie, framing};

use super::client::{Client, address_value};
use super::error::ProxyError;
use super::runtime_config::RuntimeConfig;

/// Maximum length of a method in bytes. The longest registered method has 17.
pub const MAX_METHOD: usize = 32;

/// Origin of a request, taking into account only trusted peers.
#[derive(Debug)]
pub(super) struct ForwardedInfo {
    pub(super) address: IpAddr,
    /// Whether the peer is in `trusted_peers`.
    trusted: bool,
    /// Whether the client used https, according to a trusted peer.
    pub(super) https: bool,
    pub(super) hop: Hop,
}

/// Rejects requests that must not be forwarded on any route: invalid methods, oversized targets, heads and
/// declared bodies, ambiguous framing. Merges repeated equal `Content-Length` values into one.
pub(super) fn check(request: &mut Request<RequestBody>, config: &Config) -> Result<(), ProxyError> {
    check_method(request.method())?;
    let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
    if target.len() > config.limits.uri_bytes {
        return Err(ProxyError::UriTooLong);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ProxyError::RawTarget);
    }
    if request.headers().len() > config.limits.header_count
        && lines(request.headers(), request.version()) > config.limits.header_count
    {
        return Err(ProxyError::HeaderCount);
    }
    // For HTTP/1 hyper enforces the limit while it reads the head.
    if request.version() == Version::HTTP_2
        && target.len() + list_size(request.headers()) > config.limits.header_bytes
    {
        return Err(ProxyError::HeaderBytes);
    }
    if !framing::keep_one_length(request.headers_mut()) {
        return Err(ProxyError::Framing);
    }
    match request.body() {
        RequestBody::Empty => Ok(()),
        RequestBody::Streaming(_) => check_body(request.headers(), config),
    }
}

/// Rejects `CONNECT` and `TRACE`, methods longer than [`MAX_METHOD`], and methods with other characters than
/// capital letters and hyphens. Methods are tokens, but servers disagree on unusual ones.
fn check_method(method: &Method) -> Result<(), ProxyError> {
    if matches!(*method, Method::CONNECT | Method::TRACE) {
        Err(ProxyError::Method)
    } else if method.as_str().len() > MAX_METHOD {
        Err(ProxyError::LongMethod)
    } else if !method.as_str().bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        Err(ProxyError::OddMethod)
    } else {
        Ok(())
    }
}

/// Number of header lines on the upstream connection. HTTP/2 may split cookies (RFC 9113 section 8.2.3); they
/// are joined into one line.
fn lines(headers: &HeaderMap, version: Version) -> usize {
    let cookies = headers.get_all(header::COOKIE).iter().count();
    let joined = if version == Version::HTTP_2 { cookies.saturating_sub(1) } else { 0 };
    headers.len() - joined
}

/// Size of `headers` according to RFC 9113 section 6.5.2: names, values and 32 bytes per line.
fn list_size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
}

fn check_body(headers: &HeaderMap, config: &Config) -> Result<(), ProxyError> {
    // hyper verifies that a length is one number and that `chunked` is the last coding. It accepts codings
    // such as `identity, chunked`, which the next server may interpret differently.
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(ProxyError::Framing);
    }
    match (config.limits.body_bytes, declared_length(headers)) {
        (Some(max), Some(length)) if length > max => Err(ProxyError::BodyTooLarge),
        _ => Ok(()),
    }
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The request id: taken from a trusted peer, otherwise generated. Returns `None` when request ids are
/// disabled.
pub(super) fn request_id(
    headers: &HeaderMap,
    forwarding: &Forwarding,
    client: &Client,
) -> Option<HeaderValue> {
    if !forwarding.request_id {
        return None;
    }
    let claimed = if forwarded::is_trusted(client.address, &forwarding.trusted_peers) {
        forwarded::claimed_request_id(headers).cloned()
    } else {
        None
    };
    claimed.or_else(new_request_id)
}

/// The client's address, taking into account only trusted peers.
pub(super) fn client_address(headers: &HeaderMap, forwarding: &Forwarding, client: &Client) -> IpAddr {
    let trusted = &forwarding.trusted_peers;
    if forwarded::is_trusted(client.address, trusted) {
        forwarded::client_address(headers, client.address, trusted)
    } else {
        client.address
    }
}

/// Strips the request head and rebuilds it for the upstream connection. `host` and `request_id` are the
/// values determined for the request.
pub(super) fn clean(
    request: &mut Request<RequestBody>,
    plan: &RuntimeConfig,
    client: &Client,
    host: Option<&HeaderValue>,
    request_id: Option<&HeaderValue>,
) -> ForwardedInfo {
    let forwarding = &plan.config.forwarding;
    let version = request.version();
    let may_upgrade = may_upgrade(request);
    let waits = waits_for_leave(request);
    let headers = request.headers_mut();
    let mut hop = hop_by_hop::take_nominated(headers, version);
    hop.websocket &= may_upgrade;
    let trusted = forwarded::is_trusted(client.address, &forwarding.trusted_peers);
    plan.rules.strip_request(headers, trusted);
    cookie::join_lines(headers);
    // Capacity for the headers added below, so that the map grows at most once.
    headers.reserve(12);

    let https = trusted
        && forwarded::claimed_https(headers, client.address, &forwarding.trusted_peers).unwrap_or(false);
    let origin = ForwardedInfo { address: client_address(headers, forwarding, client), trusted, https, hop };
    set_address(headers, forwarding, client, &origin);
    if forwarding.x_forwarded {
        set_target(headers, client, &origin, host);
    }
    if forwarding.forwarded {
        let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
        forwarded::append_forwarded(headers, client.address, origin.https, host);
    }
    if let Some(id) = request_id {
        headers.insert(&X_REQUEST_ID, id.clone());
    }
    set_hop(headers, hop);
    if waits {
        headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
        request.body_mut().wait_for_leave(plan.config.timeouts.expect_continue);
    }
    as_origin_form(request);
    keep_body(request);
    origin
}

/// RFC 6455 section 4.1: a WebSocket handshake is a `GET`. Servers disagree on the meaning of a body in the
/// handshake, so a request with a body is not upgraded.
fn may_upgrade(request: &Request<RequestBody>) -> bool {
    *request.method() == Method::GET && matches!(request.body(), RequestBody::Empty)
}

/// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 section 10.1.1).
fn waits_for_leave(request: &Request<RequestBody>) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version() != Version::HTTP_10
        && matches!(request.body(), RequestBody::Streaming(_))
        && request.headers().get(header::EXPECT).is_some_and(expects)
}

/// Without a length, hyper sends the body of some methods only if `Transfer-Encoding` is set explicitly.
fn keep_body(request: &mut Request<RequestBody>) {
    if matches!(request.body(), RequestBody::Streaming(_)) && request.body().size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

fn set_hop(headers: &mut HeaderMap, hop: Hop) {
    if hop.websocket {
        hop_by_hop::set_websocket(headers);
    } else if hop.trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// Converts the request to HTTP/1.1 with a target in origin form.
fn as_origin_form<B>(request: &mut Request<B>) {
    *request.version_mut() = Version::HTTP_11;
    if request.uri().authority().is_some() {
        let mut bare = http::uri::Parts::default();
        bare.path_and_query = request.uri().path_and_query().cloned();
        // Cannot fail: a path with query is always a valid target.
        *request.uri_mut() = Uri::from_parts(bare).unwrap_or_default();
    }
}

/// Sets `X-Forwarded-For` and `X-Real-IP`.
fn set_address(headers: &mut HeaderMap, forwarding: &Forwarding, client: &Client, origin: &ForwardedInfo) {
    let direct = origin.address == client.address;
    let resolved = || if direct { client.address_value.clone() } else { address_value(origin.address) };
    match forwarding.x_forwarded_for {
        ForwardedFor::Append if origin.trusted => {
            forwarded::append(headers, &X_FORWARDED_FOR, &client.address_value);
        }
        ForwardedFor::Append | ForwardedFor::Replace => {
            headers.insert(&X_FORWARDED_FOR, resolved());
        }
        ForwardedFor::Off => {
            headers.remove(&X_FORWARDED_FOR);
        }
    }
    if forwarding.x_real_ip {
        headers.insert(&X_REAL_IP, resolved());
    }
}

/// Sets `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-Port`. Host and port of a trusted peer are
/// kept.
fn set_target(headers: &mut HeaderMap, client: &Client, origin: &ForwardedInfo, host: Option<&HeaderValue>) {
    let proto = if origin.https { "https" } else { "http" };
    headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    if let Some(host) = host {
        headers.entry(&X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
    headers.entry(&X_FORWARDED_PORT).or_insert_with(|| client.port_value.clone());
}

/// 128 random bits as hexadecimal digits. The id is unique but not a secret, so a non-cryptographic generator
/// is sufficient.
fn new_request_id() -> Option<HeaderValue> {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut digits = [0u8; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(fastrand::u128(..).to_be_bytes()) {
        for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
        }
    }
    HeaderValue::from_bytes(&digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_thirty_two_hexadecimal_digits_and_differ() {
        let (a, b) = (new_request_id().unwrap(), new_request_id().unwrap());
        assert_eq!(a.len(), 32);
        assert!(a.as_bytes().iter().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
        assert_ne!(a, b);
    }
}
