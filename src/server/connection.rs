//! Lifecycle of one client connection.
//!
//! A connection alternates between being *served* by hyper and being *parked*. After an idle period hyper's
//! state is dropped and only the socket is kept. An idle client then costs about 1 KiB.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::http1::{self, ConnectionOutcome};
use super::io::{ClientIo, UpgradedIo};
use super::{Server, http2};
use crate::proxy::Client;
use crate::socket::Socket;

/// The connection preface of HTTP/2 without TLS (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one client until it disconnects, fails or is drained, and then releases its `place` permit. This
/// future is all that is kept for an idle client, so it must stay small: state that is needed only while
/// serving is boxed, or rebuilt from the client's address and the local port.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep its arguments twice")]
pub(super) fn serve(
    server: Arc<Server>,
    mut stream: TcpStream,
    (address, port): (IpAddr, u16),
    place: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send {
    async move {
        let _held = &place;
        let mut is_new = true;
        loop {
            match Box::pin(serve_once(&server, stream, is_new, address, port)).await {
                ConnectionOutcome::Closed => return,
                ConnectionOutcome::Upgraded { stream, ahead, upgrade } => {
                    return Box::pin(upgrade.run(UpgradedIo { stream, ahead })).await;
                }
                ConnectionOutcome::Idle(idle) => stream = idle,
            }
            if !wait_for_request(&server, &stream).await {
                return;
            }
            is_new = false;
        }
    }
}

/// Serves the connection until it ends or becomes idle.
async fn serve_once(
    server: &Server,
    mut stream: TcpStream,
    is_new: bool,
    address: IpAddr,
    port: u16,
) -> ConnectionOutcome {
    let mut ahead = Bytes::new();
    if is_new {
        let Some(first) = first_bytes(server, &mut stream).await else { return ConnectionOutcome::Closed };
        ahead = first;
    }
    let client = Arc::new(Client::new(address, port));
    let io = ClientIo::new(Socket::new(stream), ahead);
    if is_new && io.ahead.starts_with(HTTP2_PREFACE) {
        Box::pin(http2::serve(server, io, client)).await;
        return ConnectionOutcome::Closed;
    }
    http1::serve(server, io, client).await
}

/// Reads the first bytes of the client, enough to detect the protocol. Returns `None` when the client
/// disconnects or sends nothing within `request_head`, or when the drain begins. The client has sent no
/// request then, so no response is owed.
async fn first_bytes(server: &Server, stream: &mut TcpStream) -> Option<Bytes> {
    let request_head = server.service.timeouts().request_head;
    // `biased`: bytes that have already arrived are served even if the drain has begun.
    tokio::select! {
        biased;
        first = timeout(request_head, read_first(stream)) => first.ok().flatten(),
        () = server.drain.begun() => None,
    }
}

/// Reads until the protocol is unambiguous. Returns `None` when the client disconnects.
async fn read_first(stream: &mut TcpStream) -> Option<Bytes> {
    let mut first = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut first).await.ok()? == 0 {
            return None;
        }
        let compared = first.len().min(HTTP2_PREFACE.len());
        if compared == HTTP2_PREFACE.len() || first.get(..compared) != HTTP2_PREFACE.get(..compared) {
            return Some(first.freeze());
        }
    }
}

/// Parks the connection. Returns true when the socket becomes readable (the next read tells data from
/// disconnect), and false when `keep_alive` expires or the drain begins.
async fn wait_for_request(server: &Server, stream: &TcpStream) -> bool {
    let keep_alive = server.service.timeouts().keep_alive;
    let mut over = pin!(sleep(keep_alive));
    let mut draining = pin!(server.drain.begun());
    poll_fn(move |cx| {
        // Unlike `readable`, this needs no space in the future.
        if let Poll::Ready(readable) = stream.poll_read_ready(cx) {
            return Poll::Ready(readable.is_ok());
        }
        let ended = over.as_mut().poll(cx).is_ready() || draining.as_mut().poll(cx).is_ready();
        if ended { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}
#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that `make` returns.
    fn size<A, B, C, D, F>(_make: impl Fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_client_fits_into_a_task_of_512_bytes() {
        let own = 120; // overhead of the runtime and the drain
        assert!(size(serve) + own <= 512, "{} bytes", size(serve));
    }
}
