//! The life of one client connection.
//!
//! A connection alternates between being *served* by hyper and being *parked*: after a pause hyper's state
//! is given up and only the socket is kept, which makes an idle client cost about a kibibyte.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::http1::{self, Served};
use super::io::{Activity, ClientIo, UpgradedIo};
use super::{Server, http2};
use crate::proxy::Client;
use crate::socket::Socket;

/// How every HTTP/2 connection without TLS begins (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one client until it leaves, fails or the drain ends it; then its `place` is free again. This is all
/// that an idle client keeps, so what is only needed at times is boxed.
#[expect(clippy::manual_async_fn, reason = "an async fn would keep its arguments twice")]
pub(super) fn serve(
    server: Arc<Server>,
    mut stream: TcpStream,
    client: Arc<Client>,
    place: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send {
    async move {
        let _held = &place;
        let Some(mut ahead) = Box::pin(first_bytes(&server, &mut stream)).await else { return };
        let activity = Arc::new(Activity::default());
        if ahead.starts_with(HTTP2_PREFACE) {
            let io = ClientIo { socket: Socket::new(stream), ahead, activity };
            return Box::pin(http2::serve(&server, io, client)).await;
        }
        loop {
            let io = ClientIo { socket: Socket::new(stream), ahead, activity: activity.clone() };
            match Box::pin(http1::serve(&server, io, client.clone())).await {
                Served::Closed => return,
                Served::Upgraded { stream, ahead, upgrade } => {
                    return Box::pin(upgrade.run(UpgradedIo { stream, ahead })).await;
                }
                Served::Idle(idle) => stream = idle,
            }
            if !wait_for_request(&server, &stream).await {
                return;
            }
            ahead = Bytes::new();
        }
    }
}

/// The first bytes a client sends, enough to tell its protocol. `None` when it left or said nothing in time:
/// it has asked for nothing, so it is owed no answer.
async fn first_bytes(server: &Server, stream: &mut TcpStream) -> Option<Bytes> {
    // What a client has sent already is served, even if the drain has begun.
    tokio::select! {
        biased;
        first = timeout(server.timeouts.request_head, read_first(stream)) => first.ok().flatten(),
        () = server.drain.begun() => None,
    }
}

/// Reads until it is clear which protocol the client speaks. `None` when it left.
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

/// Parks the connection. True when the client has sent something or left (the next read tells which),
/// false when its time is up.
async fn wait_for_request(server: &Server, stream: &TcpStream) -> bool {
    tokio::select! {
        biased;
        readable = timeout(server.timeouts.keep_alive, stream.readable()) => matches!(readable, Ok(Ok(()))),
        () = server.drain.begun() => false,
    }
}
