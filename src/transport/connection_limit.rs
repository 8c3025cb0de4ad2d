//! All connections of a process to one address, whichever worker has them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::pool::Pool;

/// The lines of a process, by address. Clones are the same lines.
#[derive(Debug, Clone)]
pub struct ConnectionLimiter(Arc<Table>);

#[derive(Debug)]
struct Table {
    lines: Mutex<BTreeMap<SocketAddr, Arc<AddressLimiter>>>,
    total: Arc<Total>,
}

/// The connections to all addresses together.
#[derive(Debug)]
struct Total {
    open: AtomicUsize,
    limit: usize,
    closed: Notify,
}

/// The right to one of them.
#[derive(Debug)]
pub(super) struct Place(Arc<Total>);

/// The connections to one address.
#[derive(Debug, Default)]
pub(super) struct AddressLimiter {
    open: AtomicUsize,
    closed: Notify,
    pools: Mutex<Vec<Weak<Pool>>>,
}

/// A connection that is open, or is being opened; dropped with it.
#[derive(Debug)]
pub struct ConnectionPermit {
    line: Arc<AddressLimiter>,
    /// Whether the number is bounded.
    counted: bool,
    /// Among all connections, for those that count there.
    place: Option<Place>,
}

impl ConnectionLimiter {
    /// Lines on which there may be `limit` connections for requests, all together.
    pub fn new(limit: usize) -> Self {
        let total = Total { open: AtomicUsize::new(0), limit, closed: Notify::new() };
        ConnectionLimiter(Arc::new(Table { lines: Mutex::default(), total: Arc::new(total) }))
    }

    /// A place among all connections. When there is none, an idle connection to any address is closed. Waits while all
    /// are in use. Cancel-safe.
    pub(super) async fn place(&self) -> Place {
        let total = &self.0.total;
        loop {
            let mut closed = pin!(total.closed.notified());
            // From here on a close is for us, whoever else waits.
            closed.as_mut().enable();
            if let Some(place) = self.try_place() {
                return place;
            }
            self.close_idle();
            closed.await;
        }
    }

    /// A place among all connections, if there is one.
    pub(super) fn try_place(&self) -> Option<Place> {
        let total = &self.0.total;
        let next = |open| (open < total.limit).then_some(open + 1);
        total.open.fetch_update(SeqCst, SeqCst, next).ok().map(|_| Place(total.clone()))
    }

    /// Tells somebody who waits for a place that there is an idle connection which may be closed.
    pub(super) fn notify_waiters(&self) {
        self.0.total.closed.notify_one();
    }

    /// Whether somebody would have to wait.
    pub(super) fn are_full(&self) -> bool {
        self.0.total.open.load(SeqCst) >= self.0.total.limit
    }

    fn close_idle(&self) {
        let lines: Vec<_> = self.lines().values().cloned().collect();
        let _ = lines.iter().any(|line| line.close_idle());
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Arc<AddressLimiter>>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more connection to `address`, where there may be `limit` of all workers together, for those who
    /// connect by themselves. When there is none, one that nobody uses is closed. Waits while all are in use.
    /// Cancel-safe.
    pub async fn room(&self, address: SocketAddr, limit: Option<usize>) -> ConnectionPermit {
        let line = self.to(address);
        match limit {
            None => line.acquire_uncounted(),
            Some(limit) => line.acquire(limit).await,
        }
    }

    pub(super) fn to(&self, address: SocketAddr) -> Arc<AddressLimiter> {
        let mut lines = self.lines();
        // A line that nobody holds has no connections, and needs not be the same later.
        lines.retain(|other, line| *other == address || Arc::strong_count(line) > 1);
        lines.entry(address).or_default().clone()
    }
}

impl AddressLimiter {
    /// Adds a worker's pool, whose idle connections may be closed for others.
    pub(super) fn add(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Room for one more connection.
    pub(super) fn acquire_uncounted(self: &Arc<Self>) -> ConnectionPermit {
        self.open.fetch_add(1, SeqCst);
        ConnectionPermit { line: self.clone(), counted: false, place: None }
    }

    /// Room for one more connection, if there are fewer than `limit`.
    pub(super) fn try_acquire(self: &Arc<Self>, limit: usize) -> Option<ConnectionPermit> {
        let next = |open| (open < limit).then_some(open + 1);
        let entered = self.open.fetch_update(SeqCst, SeqCst, next).is_ok();
        entered.then(|| ConnectionPermit { line: self.clone(), counted: true, place: None })
    }

    /// Room for one more connection where there may be `limit`: when there is none, one that nobody uses is closed, be
    /// it another worker's. Waits while all are in use. Cancel-safe.
    pub(super) async fn acquire(self: &Arc<Self>, limit: usize) -> ConnectionPermit {
        loop {
            let mut closed = pin!(self.closed.notified());
            // From here on a close is for us, whoever else waits.
            closed.as_mut().enable();
            if let Some(permit) = self.try_acquire(limit) {
                return permit;
            }
            self.close_idle();
            closed.await;
        }
    }

    /// Tells somebody who waits that there is an idle connection which may be closed.
    pub(super) fn look_again(&self) {
        self.closed.notify_one();
    }

    /// Closes a connection that nobody uses; false when there is none.
    fn close_idle(&self) -> bool {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pools.iter().filter_map(Weak::upgrade).any(|pool| pool.close_one())
    }
}

impl Default for ConnectionLimiter {
    /// Lines on which there may be any number.
    fn default() -> Self {
        ConnectionLimiter::new(usize::MAX)
    }
}

impl ConnectionPermit {
    /// The permit along with a place among all connections.
    pub(super) fn at(self, place: Place) -> Self {
        let mut permit = self;
        permit.place = Some(place);
        permit
    }

    pub(super) fn is_counted(&self) -> bool {
        self.counted
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.line.open.fetch_sub(1, SeqCst);
        self.line.closed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
        self.0.closed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_place_that_is_left_goes_to_who_waits() {
        let lines = ConnectionLimiter::new(2);
        let held = lines.to(([127, 0, 0, 1], 1).into()).acquire_uncounted().at(lines.try_place().unwrap());
        let _other = lines.try_place().unwrap();
        assert!(lines.are_full() && lines.try_place().is_none());
        let mut waiting = pin!(lines.place());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(held);
        let _place = waiting.await;
        assert!(lines.are_full());
    }

    #[tokio::test]
    async fn any_number_may_wait_and_each_gets_its_place() {
        let lines = ConnectionLimiter::new(3);
        let held: Vec<_> = (0..3).map(|_| lines.try_place().unwrap()).collect();
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let lines = lines.clone();
                tokio::spawn(async move { drop(lines.place().await) })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(held);
        for waiter in waiting {
            waiter.await.unwrap();
        }
        assert!(!lines.are_full());
    }
}
