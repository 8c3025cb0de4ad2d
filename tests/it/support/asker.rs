//! A client that asks who it is, as the owner of one session after the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::client::Client;
use super::service::Service;

/// Who a request without a session is.
pub(crate) const NOBODY: &str = "nobody";

/// An instance that tells each request the user that it was told.
pub(crate) fn mirror() -> Service {
    Service::telling(|head| head.headers.get("x-user-id").unwrap_or(NOBODY).to_owned())
}

/// What a request was told, and when.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) begun: Instant,
    pub(crate) took: Duration,
    pub(crate) status: u16,
    /// The user with 200, otherwise the problem.
    pub(crate) text: String,
    pub(crate) clears_cookie: bool,
}

impl Told {
    /// The user, if the request was served.
    pub(crate) fn user(&self) -> Option<&str> {
        (self.status == 200).then_some(self.text.as_str())
    }
}

/// A connection of its own to the proxy under test.
pub(crate) struct Asker(Client);

impl Asker {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self(Client::connect(address).await)
    }

    /// Asks with the session `id`; any answer other than 200 and 503 fails the test.
    pub(crate) async fn ask(&mut self, id: &str) -> Told {
        self.ask_with(&format!("session-id={id}")).await
    }

    /// Asks with this `Cookie` line.
    pub(crate) async fn ask_with(&mut self, cookie: &str) -> Told {
        let begun = Instant::now();
        let response = self.0.request("GET", "/", &[("Cookie", cookie)], b"").await;
        assert!(matches!(response.status, 200 | 503), "{response:?}");
        Told {
            begun,
            took: begun.elapsed(),
            status: response.status,
            text: response.text().to_owned(),
            clears_cookie: !response.headers.all("set-cookie").is_empty(),
        }
    }
}
