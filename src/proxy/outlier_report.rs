//! Reports request results to the outlier detection of instances.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use crate::body::RequestBodyState;
use crate::transport::{ConnectError, SendError, UpstreamBody};
use crate::upstream::{Failure, Instance, Outcome};

use super::context::{Ending, RequestContext};
use super::error::ProxyError;

/// Reports the result of the attempt on `instance` that began at `begun`.
pub(super) fn attempted(
    upload: Option<&RequestBodyState>,
    instance: &Instance,
    result: &Result<Response<UpstreamBody>, ProxyError>,
    begun: Instant,
) {
    let outcome = match result {
        Ok(answer) => match status_failure(answer.status(), answer.headers()) {
            Some(failure) => Some(Outcome::Failed(failure)),
            None => Some(Outcome::Answered(begun)),
        },
        Err(error) => failure(upload, error).map(Outcome::Failed),
    };
    if let Some(outcome) = outcome {
        instance.note(outcome);
    }
}

/// Reports a timeout: `instance` was abandoned for another instance.
pub(super) fn abandoned(instance: &Instance) {
    instance.note(Outcome::Failed(Failure::TimedOut));
}

/// Reports the end of an instance's response. A response with a failure reason was generated or aborted by
/// the proxy and is not reported.
pub(super) fn ended(exchange: &RequestContext) {
    let Some(lease) = exchange.lease.as_ref().filter(|_| exchange.reason.is_none()) else { return };
    let has_uploaded = exchange.upload.as_ref().is_none_or(|upload| upload.failure().is_none());
    match exchange.ending {
        Ending::Whole => lease.instance().note(Outcome::Completed),
        // If the upload failed, it may have caused the failure of the response.
        Ending::Cut if has_uploaded => lease.instance().note(Outcome::Failed(Failure::Cut)),
        _ => {}
    }
}

/// Returns `None` when the error is caused by the client, the application or the proxy.
fn failure(upload: Option<&RequestBodyState>, error: &ProxyError) -> Option<Failure> {
    match error {
        ProxyError::Connect(ConnectError::Exhausted(_) | ConnectError::Full | ConnectError::TooMany) => None,
        ProxyError::Connect(_) => Some(Failure::Connect),
        ProxyError::Send(SendError::TimedOut | SendError::Stalled) => {
            // While the client is still sending, the instance may be waiting for the body.
            let has_sent_all = upload.is_none_or(RequestBodyState::is_over);
            has_sent_all.then_some(Failure::TimedOut)
        }
        ProxyError::Send(SendError::Broken(_) | SendError::Silent(_) | SendError::Unsent) => {
            Some(Failure::Broken)
        }
        // These responses come from the application: a page with very many `Link` headers must not eject its
        // instance.
        ProxyError::Send(SendError::HeadTooLarge | SendError::Malformed(_)) => None,
        _ => None,
    }
}

/// Returns a failure for statuses 500 and 502 to 504, except with a JSON body. JSON errors are written by the
/// application and say nothing about the instance. Servers and gateways whose application is unavailable
/// respond with HTML or text.
fn status_failure(status: StatusCode, headers: &HeaderMap) -> Option<Failure> {
    let speaks_of_the_instance = matches!(status.as_u16(), 500 | 502..=504);
    (speaks_of_the_instance && !headers.get(CONTENT_TYPE).is_some_and(is_json))
        .then(|| Failure::Status(status.as_u16()))
}

/// Whether `kind` is `application/json` or a type with the suffix `+json`.
fn is_json(kind: &HeaderValue) -> bool {
    let Ok(kind) = kind.to_str() else { return false };
    let essence = kind.split(';').next().unwrap_or(kind).trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/");
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, kind: &'static str) -> Option<Failure> {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        status_failure(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn only_a_bare_gateway_status_speaks_of_the_instance() {
        for status in [500, 502, 503, 504] {
            for kind in ["", "text/html", "text/plain; charset=utf-8", "application/jsonp", "text/json"] {
                assert_eq!(of(status, kind), Some(Failure::Status(status)), "{status} {kind}");
            }
        }
        for status in [200, 302, 400, 404, 429, 499, 501, 505, 507] {
            assert_eq!(of(status, "text/html"), None, "{status}");
        }
    }

    #[test]
    fn what_an_application_says_in_json_is_its_own_affair() {
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert_eq!(of(500, kind), None, "{kind}");
            assert_eq!(of(503, kind), None, "{kind}");
        }
    }
}
