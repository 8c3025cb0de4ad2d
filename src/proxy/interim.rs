//! Forwarding of interim responses (1xx) from an instance to the client (RFC 9110 section 15.2).

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{CONTENT_LENGTH, EXPECT};
use http::{HeaderMap, Request, StatusCode, Version};

use crate::body::{RequestBody, RequestBodyState};
use crate::headers::hop_by_hop;

use super::client::Client;
use super::context::RequestContext;
use super::header_rules::HeaderRules;

/// Maximum number of buffered bytes per client. Further interim responses are dropped, which is permitted.
const MOST_WAITING: usize = 64 * 1024;

/// Serialized interim responses to be written to a client's HTTP/1.1 connection. They belong to the one
/// request whose final response has not begun.
#[derive(Debug, Default)]
pub(super) struct Interim {
    is_waiting: AtomicBool,
    bytes: Mutex<Vec<u8>>,
}

impl Interim {
    /// Takes the buffered bytes.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.is_waiting
            .swap(false, Relaxed)
            .then(|| std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn push(&self, head: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes.len() + head.len() <= MOST_WAITING {
            bytes.extend_from_slice(head);
            self.is_waiting.store(true, Relaxed);
        }
    }
}

/// Forwards the interim responses to one request.
#[derive(Debug, Clone)]
pub(super) struct Relay {
    /// `None` when the client cannot receive them: HTTP/1.0 has no interim responses, and hyper does not
    /// write them over HTTP/2.
    client: Option<Arc<Client>>,
    /// State of the request body that waits for `100 Continue`.
    upload: Option<Arc<RequestBodyState>>,
    rules: Arc<HeaderRules>,
}

impl Relay {
    /// Returns `None` when there is no recipient.
    pub(super) fn of(exchange: &RequestContext, request: &Request<RequestBody>) -> Option<Self> {
        let may_be_told = exchange.version == Version::HTTP_11;
        let client = may_be_told.then(|| exchange.connection.clone());
        let upload = exchange.upload.clone().filter(|_| request.headers().contains_key(EXPECT));
        let is_wanted = client.is_some() || upload.is_some();
        is_wanted.then(|| Relay { client, upload, rules: exchange.plan.rules.clone() })
    }

    /// Registers this relay for the interim responses to `request`.
    pub(super) fn attach<B>(&self, request: &mut Request<B>) {
        let relay = self.clone();
        hyper::ext::on_informational(request, move |response| {
            relay.pass_on(response.status(), response.headers());
        });
    }

    fn pass_on(&self, status: StatusCode, headers: &HeaderMap) {
        match (&self.upload, &self.client) {
            // hyper sends `100 Continue` to the client when the body is first polled.
            (Some(upload), _) if status == StatusCode::CONTINUE => upload.give_leave(),
            (_, Some(client)) => client.interim.push(&head(status, headers, &self.rules)),
            _ => {}
        }
    }
}

/// Serializes an interim response after removing the same headers as from a final response.
fn head(status: StatusCode, headers: &HeaderMap, rules: &HeaderRules) -> Vec<u8> {
    let mut headers = headers.clone();
    hop_by_hop::take_nominated(&mut headers, Version::HTTP_11);
    rules.from_upstream.strip(&mut headers);
    headers.remove(CONTENT_LENGTH);
    let mut line = String::new();
    // Writing to a string cannot fail.
    let _ =
        write!(line, "HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut head = line.into_bytes();
    for (name, value) in &headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_taken_in_order_and_only_once_and_has_a_bound() {
        let interim = Interim::default();
        assert_eq!(interim.take(), None);
        interim.push(b"one");
        interim.push(b"two");
        interim.push(&vec![0; MOST_WAITING]);
        assert_eq!(interim.take().as_deref(), Some(&b"onetwo"[..]));
        assert_eq!(interim.take(), None);
    }
}
