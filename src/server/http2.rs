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

/// Maximum number of concurrent streams per connection.
const MAX_STREAMS: u32 = 100;
/// Flow-control windows: the maximum number of bytes that a client may send ahead of what the instances read,
/// per stream and per connection. With half of the connection window per stream, two instances that do not
/// read could block all other uploads.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// hyper rejects heads larger than this multiple of the limit. Smaller ones reach the service, where
/// rejections are counted and logged.
const HEAD_ROOM: usize = 2;
/// Stall timeout of a stream while body memory is exhausted and other streams wait for it.
const HURRIED: Duration = Duration::from_secs(5);
/// Interval of the connection checks while body memory is exhausted.
const HURRIED_PAUSE: Duration = Duration::from_millis(250);

/// Serves streams until the client disconnects, is idle or stalled for too long, or the last stream has ended
/// after a drain.
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
            // The result of the connection is ignored: each request has its own response and log line.
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

/// Checks the timeouts of a connection.
struct ConnectionTimer<'a> {
    activity: &'a ConnectionActivity,
    holdings: &'a ConnectionMemory,
    keep_alive: Duration,
    client_idle: Duration,
    request_head: Duration,
    seen_requests: u64,
    idle_since: Instant,
    seen_written: u64,
    /// Time of the last check at which bytes had been written or the socket was not blocked.
    written_since: Instant,
}

/// Result of a check.
enum TimerCheck {
    Well,
    /// No request for `keep_alive`.
    Idle,
    /// The client has not read its responses for too long.
    Stalled,
    /// A request head is incomplete for `request_head`. Meanwhile no other frame can arrive on the
    /// connection.
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

    /// Time until the next check.
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

    /// Whether the whole connection has stalled. Stalled streams are aborted.
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
        // While the socket is blocked but moving, the connection is slow as a whole and each stream waits for
        // its turn.
        let stuck = self.holdings.cut_stalled(now, patience, is_full && is_moving && !is_short);
        if !is_short {
            self.holdings.wake();
        }
        stuck && self.activity.active() == 0
    }
}
