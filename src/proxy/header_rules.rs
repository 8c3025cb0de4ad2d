//! Rules for the headers and trailers that the proxy does not forward.

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use crate::config::Config;
use crate::headers::claims::{NEVER, claims_and, frame, is_proper};
use crate::headers::hop_by_hop;
use crate::headers::name::{NameSet, strip_if};
use crate::session::CONTROL_HEADER;

/// Fields that are never accepted in trailers. They would change the meaning of the head after it has been
/// processed (RFC 9110 section 6.5.1).
const NEVER_IN_TRAILERS: [&str; 27] = [
    "age",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authorization",
    "range",
    "retry-after",
    "set-cookie",
    "trailer",
    "vary",
    "www-authenticate",
];

/// The rules of one configuration.
#[derive(Debug)]
pub(super) struct HeaderRules {
    /// Names in `ends_here` and claims that only a trusted peer may make, in the proper spelling.
    suspects: NameSet,
    /// Removed from all requests.
    ends_here: NameSet,
    /// Claims accepted from every client, in the proper spelling.
    passed: Vec<HeaderName>,
    /// Names accepted in their proper spelling only.
    frame: NameSet,
    /// Removed from responses.
    pub(super) from_upstream: NameSet,
    /// Removed from request trailers.
    pub(super) request_trailers: Arc<NameSet>,
    /// Removed from response trailers.
    pub(super) answer_trailers: NameSet,
}

impl HeaderRules {
    pub(super) fn new(config: &Config) -> Self {
        let asserted: Vec<&str> = config.identity.headers.iter().map(|header| header.name.as_str()).collect();
        let control = CONTROL_HEADER;
        // `Expect: 100-continue` is the only defined expectation. The pipeline adds it again when it applies.
        let ours = ["expect", control.as_str()];
        let base = asserted.iter().copied().chain(ours).chain(NEVER).chain(hop_by_hop::NAMES);
        let set = config.routes.iter().flat_map(|route| &route.headers).map(|header| header.name.as_str());
        let of_answers = hop_by_hop::NAMES.into_iter().chain([control.as_str()]);
        HeaderRules {
            request_trailers: Arc::new(claims_and(base.clone().chain(set).chain(NEVER_IN_TRAILERS))),
            suspects: claims_and(base.clone()),
            ends_here: NameSet::new(base),
            passed: config.forwarding.pass.clone(),
            frame: frame(),
            from_upstream: NameSet::new(of_answers.clone()),
            answer_trailers: NameSet::new(of_answers.chain(NEVER_IN_TRAILERS)),
        }
    }

    /// Removes headers that the sender of a request must not set. Claims of a `trusted` peer and claims in
    /// `passed` are kept.
    ///
    /// Improper spellings (such as `X_User_Id`) are removed even from trusted peers: they come from the
    /// client, forwarded by a peer that strips only the proper spelling.
    pub(super) fn strip_request(&self, headers: &mut HeaderMap, trusted: bool) {
        strip_if(headers, |name| {
            if !self.suspects.matches(name) {
                return !is_proper(name) && self.frame.matches(name);
            }
            self.ends_here.matches(name)
                || !is_proper(name)
                || !(trusted || self.passed.iter().any(|passed| passed == name))
        });
    }
}
