//! WebSocket upgrades: a 101 response turns the client and upstream connections into a tunnel.

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::headers::hop_by_hop;
use crate::transport::{Tunnel, UpstreamBody};

use super::context::{Ending, RequestContext};
use super::error::ProxyError;
use super::respond::ResponseBody;

/// Passed in the extensions of a 101 response to the owner of the client's socket.
#[derive(Clone)]
pub struct Upgrade(Arc<Mutex<Option<Pending>>>);

/// A tunnel that waits for the client's socket, with the context of its request.
struct Pending {
    tunnel: Tunnel,
    exchange: Box<RequestContext>,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}

impl Upgrade {
    /// Copies bytes between `client` and the instance until the tunnel ends, and then ends the request. Only
    /// the first call among all clones runs the tunnel; further calls return at once.
    pub async fn run(self, client: impl AsyncRead + AsyncWrite + Unpin) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Pending { tunnel, mut exchange }) = taken else { return };
        exchange.ending = Ending::Whole;
        let report = tunnel.run(client, poll_fn(|cx| exchange.poll_closed(cx))).await;
        (exchange.received, exchange.sent) = (report.received, report.sent);
    }
}

/// Converts the instance's 101 response into the client's, with the tunnel attached. The response's
/// hop-by-hop headers must have been removed before.
pub(super) async fn switch(
    mut response: Response<UpstreamBody>,
    mut exchange: Box<RequestContext>,
) -> Result<Response<ResponseBody>, (ProxyError, Box<RequestContext>)> {
    let upstream = match hyper::upgrade::on(&mut response).await {
        Ok(upstream) => upstream,
        Err(error) => return Err((ProxyError::Upgrade(error), exchange)),
    };
    exchange.answered(StatusCode::SWITCHING_PROTOCOLS);
    exchange.takes_its_time(true);
    let (head, _) = response.into_parts();
    let tunnel = Tunnel::new(upstream, exchange.plan.config.timeouts.tunnel_idle);
    let mut response = Response::from_parts(head, ResponseBody::switching());
    hop_by_hop::set_websocket(response.headers_mut());
    response.extensions_mut().insert(Upgrade(Arc::new(Mutex::new(Some(Pending { tunnel, exchange })))));
    Ok(response)
}
