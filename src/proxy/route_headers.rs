//! Request headers that a route sets. Their values come from verified properties of the request, never from
//! client claims.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::config::{RequestPiece, RequestVariable, Route, RouteHeader};
use crate::headers::name::NameSet;

use super::clean::ForwardedInfo;
use super::client::address_value;

/// The headers of one route, compiled.
#[derive(Debug, Default)]
pub(super) struct RouteHeaders {
    names: NameSet,
    headers: Vec<RouteHeader>,
}

impl RouteHeaders {
    /// Compiles the headers of each route, in order.
    pub(super) fn of(routes: &[Route]) -> Vec<RouteHeaders> {
        let compiled = |route: &Route| RouteHeaders {
            names: NameSet::new(route.headers.iter().map(|header| header.name.as_str())),
            headers: route.headers.clone(),
        };
        routes.iter().map(compiled).collect()
    }

    /// Removes the client's values from `request`, in every spelling, and sets the route's values.
    /// `authority` is the requested host with its port.
    pub(super) fn apply<B>(
        &self,
        request: &mut Request<B>,
        origin: &ForwardedInfo,
        authority: Option<&HeaderValue>,
    ) {
        if self.headers.is_empty() {
            return;
        }
        self.names.strip(request.headers_mut());
        let authority = authority.map_or(&[][..], HeaderValue::as_bytes);
        for RouteHeader { name, value } in &self.headers {
            let mut bytes = Vec::new();
            for piece in value {
                append(&mut bytes, piece, origin, authority, request.uri());
            }
            set(request.headers_mut(), name, &bytes);
        }
    }
}

fn append(bytes: &mut Vec<u8>, piece: &RequestPiece, origin: &ForwardedInfo, authority: &[u8], target: &Uri) {
    match piece {
        RequestPiece::Text(text) => bytes.extend_from_slice(text.as_bytes()),
        RequestPiece::Variable(RequestVariable::Scheme) => {
            bytes.extend_from_slice(if origin.https { b"https" } else { b"http" });
        }
        RequestPiece::Variable(RequestVariable::Host) => {
            bytes.extend(without_port(authority).iter().map(u8::to_ascii_lowercase));
        }
        RequestPiece::Variable(RequestVariable::Authority) => bytes.extend_from_slice(authority),
        RequestPiece::Variable(RequestVariable::RequestUri) => {
            let target = target.path_and_query().map_or("", |target| target.as_str());
            bytes.extend_from_slice(target.as_bytes());
        }
        RequestPiece::Variable(RequestVariable::Client) => {
            bytes.extend_from_slice(address_value(origin.address).as_bytes());
        }
    }
}

/// A validated authority without its port. An IPv6 address keeps its brackets.
fn without_port(authority: &[u8]) -> &[u8] {
    let Some(colon) = authority.iter().rposition(|byte| *byte == b':') else { return authority };
    let (host, port) = authority.split_at(colon);
    if port.contains(&b']') { authority } else { host }
}

/// Sets the header unless the value is empty. Conversion cannot fail for configured texts and validated
/// targets.
fn set(headers: &mut HeaderMap, name: &HeaderName, bytes: &[u8]) {
    if !bytes.is_empty()
        && let Ok(value) = HeaderValue::from_bytes(bytes)
    {
        headers.insert(name.clone(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_left_out_and_an_address_kept() {
        for (authority, host) in
            [("a", "a"), ("a:80", "a"), ("[::1]", "[::1]"), ("[::1]:8080", "[::1]"), ("", "")]
        {
            assert_eq!(without_port(authority.as_bytes()), host.as_bytes(), "{authority}");
        }
    }
}
