//! Timeouts of an HTTP/1.1 connection while hyper serves it.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1::Connection;
use hyper::service::HttpService;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Server;
use super::http1::InFlightBody;
use super::http1_io::Http1Io;
use super::io::ConnectionActivity;

/// Check interval of a connection outside a request.
const IDLE_TICK: Duration = Duration::from_millis(400);
/// Check interval within a request.
const BUSY_TICK: Duration = Duration::from_secs(1);
/// Number of served connections per worker up to which idle connections are parked at the normal interval.
const UNHURRIED: u32 = 128;
/// Shortest check interval under load.
const SHORTEST_IDLE_TICK: Duration = Duration::from_millis(20);

/// Reason why serving ended.
pub(super) enum End {
    Finished,
    Failed(hyper::Error),
    Idle,
    HeadTimedOut,
    Stalled,
}

/// Checks all timeouts of a connection with a single periodic timer.
pub(super) struct ConnectionTimer<'a> {
    server: &'a Server,
    activity: Arc<ConnectionActivity>,
    tick: Pin<Box<Sleep>>,
    draining: bool,
    /// While a head is awaited: its deadline, and the number of requests begun before it.
    head: Option<(Instant, u64)>,
    /// Values at the last check.
    seen_requests: u64,
    seen_progress: u64,
    /// Time of the last check at which bytes had been transferred or the socket was not blocked.
    progress_since: Instant,
}

impl<'a> ConnectionTimer<'a> {
    pub(super) fn new(server: &'a Server, activity: Arc<ConnectionActivity>) -> Self {
        let now = Instant::now();
        SERVED.set(SERVED.get() + 1);
        let mut keeper = ConnectionTimer {
            server,
            tick: Box::pin(sleep_until(now)),
            draining: false,
            head: None,
            seen_requests: activity.requests(),
            seen_progress: activity.progress(),
            progress_since: now,
            activity,
        };
        keeper.expect_head(now);
        keeper
    }

    pub(super) fn expect_head(&mut self, now: Instant) {
        self.head = Some((now + self.server.service.timeouts().request_head, self.activity.requests()));
        let next = self.next_check(now);
        self.tick.as_mut().reset(next);
    }

    /// Time of the next check.
    fn next_check(&self, now: Instant) -> Instant {
        match self.head {
            Some((until, _)) => until.min(now + idle_tick(SERVED.get())),
            None if self.is_busy() => {
                (self.progress_since + self.server.service.timeouts().client_idle).min(now + BUSY_TICK)
            }
            None => now + idle_tick(SERVED.get()),
        }
    }

    /// Whether a response is being produced or written.
    fn is_busy(&self) -> bool {
        self.activity.active() > 0 || self.activity.write_blocked()
    }

    /// Drives `connection` until it ends or must be stopped. A drain is noticed at the next poll, at most one
    /// tick later.
    pub(super) async fn run<S>(&mut self, connection: &mut Connection<Http1Io, S>) -> End
    where
        S: HttpService<Incoming, ResBody = InFlightBody, Error = Infallible>,
    {
        poll_fn(|cx| {
            let drain_now = !self.draining && self.server.drain.has_begun();
            if drain_now && self.activity.active() > 0 {
                self.drain(connection);
            }
            let mut result = Pin::new(&mut *connection).poll(cx);
            if drain_now && !self.draining && result.is_pending() {
                // Requests that had already arrived have been served or begun by now. An idle connection
                // closes at once.
                self.drain(connection);
                result = Pin::new(&mut *connection).poll(cx);
            }
            if let Poll::Ready(result) = result {
                return Poll::Ready(result.map_or_else(End::Failed, |()| End::Finished));
            }
            while self.tick.as_mut().poll(cx).is_ready() {
                let now = Instant::now();
                if let Some(end) = self.check(now) {
                    return Poll::Ready(end);
                }
                let next = self.next_check(now);
                self.tick.as_mut().reset(next);
            }
            Poll::Pending
        })
        .await
    }

    /// Makes the response in flight, if there is one, the last on this connection; it carries `Connection:
    /// close`.
    fn drain<S: HttpService<Incoming, ResBody = InFlightBody, Error = Infallible>>(
        &mut self,
        connection: &mut Connection<Http1Io, S>,
    ) {
        self.draining = true;
        Pin::new(connection).graceful_shutdown();
    }

    /// Checks the timeouts. Returns the reason to stop serving, if there is one.
    fn check(&mut self, now: Instant) -> Option<End> {
        let requests = self.activity.requests();
        let quiet = requests == self.seen_requests;
        self.seen_requests = requests;
        if self.stalled(now) {
            return Some(End::Stalled);
        }
        if self.is_busy() {
            self.head = None;
            return None;
        }
        match self.head {
            Some((until, before)) if before == requests => (now >= until).then_some(End::HeadTimedOut),
            _ => {
                self.head = None;
                quiet.then_some(End::Idle)
            }
        }
    }

    /// Whether the client has neither read response bytes nor sent anything for `client_idle`.
    fn stalled(&mut self, now: Instant) -> bool {
        let progress = self.activity.progress();
        if !self.activity.write_blocked() || progress != self.seen_progress {
            (self.seen_progress, self.progress_since) = (progress, now);
            return false;
        }
        now.saturating_duration_since(self.progress_since) >= self.server.service.timeouts().client_idle
    }
}

impl Drop for ConnectionTimer<'_> {
    fn drop(&mut self) {
        SERVED.set(SERVED.get().saturating_sub(1));
    }
}

thread_local! {
    /// Number of connections of this worker (one thread) that hyper currently serves.
    static SERVED: Cell<u32> = const { Cell::new(0) };
}

/// How long a connection must be quiet before it is parked, when `served` connections are being served. Under
/// a burst of clients the interval shrinks: otherwise hyper would hold state for all of them at once, and the
/// allocator retains part of the freed memory.
fn idle_tick(served: u32) -> Duration {
    (IDLE_TICK * UNHURRIED / served.max(UNHURRIED)).max(SHORTEST_IDLE_TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_clients_are_held_the_sooner_they_are_parked() {
        assert_eq!(idle_tick(1), IDLE_TICK);
        assert_eq!(idle_tick(UNHURRIED), IDLE_TICK);
        assert_eq!(idle_tick(UNHURRIED * 4), IDLE_TICK / 4);
        assert_eq!(idle_tick(u32::MAX), SHORTEST_IDLE_TICK);
    }
}
