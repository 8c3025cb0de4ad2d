//! Which headers and trailers end here.

use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use crate::config::Config;
use crate::headers::claims::{NEVER, claims_and, frame, is_proper};
use crate::headers::hop_by_hop;
use crate::headers::name::{NameSet, strip_if};
use crate::session::CONTROL_HEADER;

/// Fields that no trailer may add: they would change how the head is to be understood, after it was acted upon
/// (RFC 9110 section 6.5.1).
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
    /// What ends here, and what a trusted peer may say, properly spelled, and others may not.
    suspects: NameSet,
    /// Of requests, whoever sent them.
    ends_here: NameSet,
    /// Claims that are passed on for everybody, properly spelled.
    passed: Vec<HeaderName>,
    /// What may come in its proper spelling only.
    frame: NameSet,
    /// Of answers.
    pub(super) from_upstream: NameSet,
    /// Of requests.
    pub(super) request_trailers: Arc<NameSet>,
    /// Of answers.
    pub(super) answer_trailers: NameSet,
}

impl HeaderRules {
    pub(super) fn new(config: &Config) -> Self {
        let asserted: Vec<&str> = config.identity.headers.iter().map(|header| header.name.as_str()).collect();
        let control = CONTROL_HEADER;
        // The one expectation there is, `100-continue`, is written anew.
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

    /// Removes what the sender of a request may not say; of a `trusted` peer its claims stay.
    ///
    /// Another spelling than the proper one is the client's, passed on by a peer that knows only the proper one.
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
