//! Headers that a route sets in its requests.

use http::header::HeaderName;

/// A header that the instance gets from us alone, whatever the client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHeader {
    pub name: HeaderName,
    /// What its value is made of; empty: the header is taken out.
    pub value: Vec<RequestPiece>,
}

/// A part of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestPiece {
    Text(String),
    Variable(RequestVariable),
}

/// What is known of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestVariable {
    /// `{scheme}`: `https` when a trusted peer says that the client used it, otherwise `http`.
    Scheme,
    /// `{host}`: the host that was asked for, in lower case and without port.
    Host,
    /// `{authority}`: the host and, if there is one, the port, as the client wrote them.
    Authority,
    /// `{request_uri}`: path and query as the client wrote them.
    RequestUri,
    /// `{client}`: the client's address.
    Client,
}

impl RequestVariable {
    pub const ALL: [RequestVariable; 5] = [
        RequestVariable::Scheme,
        RequestVariable::Host,
        RequestVariable::Authority,
        RequestVariable::RequestUri,
        RequestVariable::Client,
    ];

    /// Its name in the braces.
    pub fn name(self) -> &'static str {
        match self {
            RequestVariable::Scheme => "scheme",
            RequestVariable::Host => "host",
            RequestVariable::Authority => "authority",
            RequestVariable::RequestUri => "request_uri",
            RequestVariable::Client => "client",
        }
    }
}
