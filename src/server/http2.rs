//! HTTP/2 on one client connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep_until};

use super::Server;
use super::http1::RunningBody;
use super::http2_io::Http2Io;
use super::io::{Activity, ClientIo};
use crate::config::Timeouts;
use crate::proxy::Client;

/// Streams a client may have open at once.
const MAX_STREAMS: u32 = 200;
/// hyper refuses heads by itself when they are this many times as large as allowed. Smaller ones reach the
/// service, whose refusals are counted and logged.
const HEAD_ROOM: usize = 2;

/// Serves streams until the client leaves, is idle or takes nothing for too long, or the drain has let the last one end.
pub(super) async fn serve(server: &Server, io: ClientIo, client: Arc<Client>) {
    let activity = io.activity.clone();
    let service = service_fn(|request: Request<Incoming>| {
        let running = activity.begin(request.version());
        let answer = server.service.clone().handle(request, client.clone());
        async move { Ok::<_, Infallible>(answer.await.map(|body| RunningBody::new(body, running))) }
    });
    let keep_alive = server.service.timeouts().keep_alive;
    let head = server.service.limits().header_bytes.saturating_mul(HEAD_ROOM);
    let mut connection = pin!(
        Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .serve_connection(Http2Io::new(io), service)
    );
    let mut keeper = Keeper::new(server, &activity);
    let mut look = pin!(sleep_until(Instant::now() + keeper.pause));
    let mut draining = false;
    loop {
        tokio::select! {
            // How an HTTP/2 connection ends concerns nobody: each request has its own answer and line.
            _ = connection.as_mut() => return,
            () = server.drain.retired(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = look.as_mut() => {
                match keeper.look(Instant::now()) {
                    Look::Well => {}
                    Look::Stalled => return,
                    Look::HeadTimedOut => {
                        server.service.refused(&client, StatusCode::REQUEST_TIMEOUT, "request_head");
                        return;
                    }
                    Look::Idle if draining => {}
                    Look::Idle => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
                look.as_mut().reset(Instant::now() + keeper.pause);
            }
        }
    }
}

/// Keeps the time of a connection.
struct Keeper<'a> {
    activity: &'a Activity,
    keep_alive: Duration,
    client_idle: Duration,
    request_head: Duration,
    /// Between two looks.
    pause: Duration,
    seen_requests: u64,
    idle_since: Instant,
    /// While answers wait for the client: how often they had been asked for more, and since when.
    awaited: Option<(u64, Instant)>,
}

/// What a look at a connection finds.
enum Look {
    Well,
    /// No request for too long.
    Idle,
    /// The client takes nothing of its answers.
    Stalled,
    /// A head has begun that does not end. Nothing else may come on the connection meanwhile.
    HeadTimedOut,
}

impl<'a> Keeper<'a> {
    fn new(server: &Server, activity: &'a Activity) -> Self {
        let Timeouts { keep_alive, client_idle, request_head, .. } = server.service.timeouts();
        Keeper {
            activity,
            keep_alive,
            client_idle,
            request_head,
            pause: keep_alive.min(client_idle).min(request_head) / 4,
            seen_requests: activity.requests(),
            idle_since: Instant::now(),
            awaited: None,
        }
    }

    fn look(&mut self, now: Instant) -> Look {
        let requests = self.activity.requests();
        if self.activity.active() > 0 || requests != self.seen_requests {
            (self.seen_requests, self.idle_since) = (requests, now);
        }
        self.awaited = self.activity.polls_awaited().map(|polls| match self.awaited {
            Some((seen, since)) if seen == polls => (polls, since),
            _ => (polls, now),
        });
        if self
            .activity
            .head_since()
            .is_some_and(|since| now.saturating_duration_since(since) >= self.request_head)
        {
            return Look::HeadTimedOut;
        }
        match self.awaited {
            Some((_, since)) if now.saturating_duration_since(since) >= self.client_idle => Look::Stalled,
            _ if now.saturating_duration_since(self.idle_since) >= self.keep_alive => Look::Idle,
            _ => Look::Well,
        }
    }
}
