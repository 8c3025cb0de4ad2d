//! HTTP/2 on one client connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep_until};

use super::Server;
use super::http1::RunningBody;
use super::io::ClientIo;
use crate::proxy::Client;

/// Streams a client may have open at once.
const MAX_STREAMS: u32 = 200;

/// Serves streams until the client leaves, is idle for too long, or the drain has let the last one end.
pub(super) async fn serve(server: &Server, io: ClientIo, client: Arc<Client>) {
    let activity = io.activity.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let running = activity.begin();
        let answer = server.service.clone().handle(request, client.clone());
        async move { Ok::<_, Infallible>(answer.await.map(|body| RunningBody::new(body, running))) }
    });
    let keep_alive = server.timeouts.keep_alive;
    let mut connection = pin!(
        Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(server.limits.header_bytes).unwrap_or(u32::MAX))
            .serve_connection(io, service)
    );
    let mut seen = activity.requests();
    let mut look = pin!(sleep_until(Instant::now() + keep_alive));
    let mut draining = false;
    loop {
        tokio::select! {
            // How an HTTP/2 connection ends concerns nobody: each request has its own answer and line.
            _ = connection.as_mut() => return,
            () = server.drain.begun(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut(), if !draining => {
                let requests = activity.requests();
                if activity.active() == 0 && requests == seen {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
                seen = requests;
                look.as_mut().reset(Instant::now() + keep_alive);
            }
        }
    }
}
