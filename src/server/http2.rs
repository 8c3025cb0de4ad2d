//! HTTP/2 on one client connection.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::time::{Instant, sleep_until};

use super::Server;
use super::http2_io::Http2Io;
use super::io::{ClientIo, ConnectionActivity};
use super::streams::{StreamBody, Streams};
use crate::body_memory::{ConnectionMemory, PIECE};
use crate::proxy::Client;

/// Streams a client may have open at once.
const MAX_STREAMS: u32 = 100;
/// Most bytes that a client may send ahead of what instances take, on a stream and on the connection: half of them on
/// one stream would let two instances that do not read stop all other uploads.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// hyper refuses heads by itself when they are this many times as large as allowed. Smaller ones reach the
/// service, whose refusals are counted and logged.
const HEAD_ROOM: usize = 2;
/// How long a stream may take nothing while others wait for the memory that is held for it.
const HURRIED: Duration = Duration::from_secs(5);
/// How often a connection looks at itself meanwhile.
const HURRIED_PAUSE: Duration = Duration::from_millis(250);

/// Serves streams until the client leaves, is idle or takes nothing for too long, or the drain has let the last one end.
pub(super) async fn serve(server: &Server, io: ClientIo, client: Arc<Client>) {
    let activity = io.activity.clone();
    let holdings = ConnectionMemory::new(server.service.stock().clone());
    let streams = Streams::default();
    let service = service_fn(|request: Request<Incoming>| {
        let (running, hold) = (activity.begin(request.version()), holdings.begin());
        streams.expect(hold.clone());
        let answer = server.service.clone().handle(request, client.clone(), Some(hold.clone()));
        async move { Ok::<_, Infallible>(answer.await.map(|body| StreamBody::new(body, running, hold))) }
    });
    let keep_alive = server.service.timeouts().keep_alive;
    let head = server.service.limits().header_bytes.saturating_mul(HEAD_ROOM);
    let mut connection = pin!(
        Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .keep_alive_interval(keep_alive)
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buf_size(PIECE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .serve_connection(Http2Io::new(io), service)
    );
    let mut keeper = ConnectionTimer::new(server, &activity, &holdings);
    let mut look = pin!(sleep_until(Instant::now() + keeper.pause()));
    let mut draining = false;
    loop {
        tokio::select! {
            // How an HTTP/2 connection ends concerns nobody: each request has its own answer and line.
            _ = connection.as_mut() => return,
            () = server.drain.retired(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = holdings.shortage() => {
                let soon = Instant::now() + HURRIED_PAUSE;
                if soon < look.deadline() {
                    look.as_mut().reset(soon);
                }
            }
            () = look.as_mut() => {
                match keeper.check(Instant::now()) {
                    TimerCheck::Well => {}
                    TimerCheck::Stalled => return,
                    TimerCheck::HeadTimedOut => {
                        server.service.refused(&client, StatusCode::REQUEST_TIMEOUT, "request_head");
                        return;
                    }
                    TimerCheck::Idle if draining => {}
                    TimerCheck::Idle => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
                look.as_mut().reset(Instant::now() + keeper.pause());
            }
        }
    }
}

/// Keeps the time of a connection.
struct ConnectionTimer<'a> {
    activity: &'a ConnectionActivity,
    holdings: &'a ConnectionMemory,
    keep_alive: Duration,
    client_idle: Duration,
    request_head: Duration,
    seen_requests: u64,
    idle_since: Instant,
    seen_written: u64,
    /// The last look at which something had been written, or the socket was not full.
    written_since: Instant,
}

/// What a look at a connection finds.
enum TimerCheck {
    Well,
    /// No request for too long.
    Idle,
    /// The client takes nothing of its answers.
    Stalled,
    /// A head has begun that does not end. Nothing else may come on the connection meanwhile.
    HeadTimedOut,
}

impl<'a> ConnectionTimer<'a> {
    fn new(server: &Server, activity: &'a ConnectionActivity, holdings: &'a ConnectionMemory) -> Self {
        let timeouts = server.service.timeouts();
        ConnectionTimer {
            activity,
            holdings,
            keep_alive: timeouts.keep_alive,
            client_idle: timeouts.client_idle,
            request_head: timeouts.request_head,
            seen_requests: activity.requests(),
            idle_since: Instant::now(),
            seen_written: activity.written(),
            written_since: Instant::now(),
        }
    }

    /// Until the next look.
    fn pause(&self) -> Duration {
        let pause = self.keep_alive.min(self.client_idle).min(self.request_head) / 4;
        if self.holdings.stock().is_full() { pause.min(HURRIED_PAUSE) } else { pause }
    }

    fn check(&mut self, now: Instant) -> TimerCheck {
        let requests = self.activity.requests();
        if self.activity.active() > 0 || requests != self.seen_requests {
            (self.seen_requests, self.idle_since) = (requests, now);
        }
        if self.takes_nothing(now) {
            return TimerCheck::Stalled;
        }
        let head_since = self.activity.head_since();
        if head_since.is_some_and(|since| now.saturating_duration_since(since) >= self.request_head) {
            return TimerCheck::HeadTimedOut;
        }
        match now.saturating_duration_since(self.idle_since) >= self.keep_alive {
            true => TimerCheck::Idle,
            false => TimerCheck::Well,
        }
    }

    /// Whether the whole connection has stalled. Streams that have are ended.
    fn takes_nothing(&mut self, now: Instant) -> bool {
        let is_short = self.holdings.stock().is_full();
        let patience = if is_short { self.client_idle.min(HURRIED) } else { self.client_idle };
        let (written, is_full) = (self.activity.written(), self.activity.write_blocked());
        let is_moving = written != self.seen_written;
        if is_moving || !is_full {
            (self.seen_written, self.written_since) = (written, now);
        }
        if now.saturating_duration_since(self.written_since) >= patience {
            return true;
        }
        // While the socket is full and emptied, it is the connection that is slow, and each stream waits for its turn.
        let stuck = self.holdings.cut_stalled(now, patience, is_full && is_moving && !is_short);
        if !is_short {
            self.holdings.wake();
        }
        stuck && self.activity.active() == 0
    }
}
