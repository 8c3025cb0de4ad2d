//! The time of an HTTP/1.1 connection that hyper serves.

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

/// How often a connection looks at itself when it is not in the middle of a request.
const IDLE_TICK: Duration = Duration::from_millis(400);
/// The same within a request.
const BUSY_TICK: Duration = Duration::from_secs(1);
/// Connections that a worker may have hyper hold without being in a hurry to park them.
const UNHURRIED: u32 = 128;
/// How often a connection looks at itself in the greatest hurry.
const SHORTEST_IDLE_TICK: Duration = Duration::from_millis(20);

/// Why hyper stopped, or was stopped.
pub(super) enum End {
    Finished,
    Failed(hyper::Error),
    Idle,
    HeadTimedOut,
    Stalled,
}

/// Keeps the time of a connection with a single timer that looks around now and then.
pub(super) struct ConnectionTimer<'a> {
    server: &'a Server,
    activity: Arc<ConnectionActivity>,
    tick: Pin<Box<Sleep>>,
    draining: bool,
    /// While a head is awaited: until when, and how many requests had begun before it.
    head: Option<(Instant, u64)>,
    /// What the last look saw.
    seen_requests: u64,
    seen_progress: u64,
    /// The last look at which something had moved, or the socket was not full.
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

    /// When something may be due next.
    fn next_check(&self, now: Instant) -> Instant {
        match self.head {
            Some((until, _)) => until.min(now + idle_tick(SERVED.get())),
            None if self.is_busy() => {
                (self.progress_since + self.server.service.timeouts().client_idle).min(now + BUSY_TICK)
            }
            None => now + idle_tick(SERVED.get()),
        }
    }

    /// Whether an answer is being made or written.
    fn is_busy(&self) -> bool {
        self.activity.active() > 0 || self.activity.write_blocked()
    }

    /// Drives `connection` until it ends or must be stopped. A drain is noticed at the next turn, which is
    /// never further away than a tick.
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
                // What was there already has been served or begun by now; an idle connection closes at once.
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

    /// The answer under way, if there is one, is the last and says so.
    fn drain<S: HttpService<Incoming, ResBody = InFlightBody, Error = Infallible>>(
        &mut self,
        connection: &mut Connection<Http1Io, S>,
    ) {
        self.draining = true;
        Pin::new(connection).graceful_shutdown();
    }

    /// Decides whether it is time for something.
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

    /// Whether the client has taken nothing of an answer for too long, and sent nothing either.
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
    /// Connections that this worker, which is one thread, has hyper hold.
    static SERVED: Cell<u32> = const { Cell::new(0) };
}

/// How long a connection must be quiet to be parked, when `served` are held. In a rush of clients hyper would
/// otherwise hold something for all of them at once, and the allocator keeps a part of what is then given back.
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
