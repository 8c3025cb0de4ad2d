//! Headers that a route sets in its requests.

use http::header::HeaderName;

/// A header that only the route sets; a value sent by the client is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHeader {
    pub name: HeaderName,
    /// The parts of the value. Empty: the header is removed.
    pub value: Vec<RequestPiece>,
}

/// A part of a header's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestPiece {
    Text(String),
    Variable(RequestVariable),
}

/// A variable that is available for every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestVariable {
    /// `{scheme}`: `https` when a trusted peer reports that the client used it, otherwise `http`.
    Scheme,
    /// `{host}`: the requested host, in lower case and without port.
    Host,
    /// `{authority}`: the host and port (if any) as sent by the client.
    Authority,
    /// `{request_uri}`: path and query as sent by the client.
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

    /// The name inside the braces.
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
