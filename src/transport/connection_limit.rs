//! Connection limits, per address and in total, over all workers of the process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::pool::Pool;

/// The limits of the process, by address. Clones share the same state.
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

/// A permit of the total limit.
#[derive(Debug)]
pub(super) struct Place(Arc<Total>);

/// The connections to one address.
#[derive(Debug, Default)]
pub(super) struct AddressLimiter {
    open: AtomicUsize,
    closed: Notify,
    pools: Mutex<Vec<Weak<Pool>>>,
}

/// Permit for a connection that is open or being opened. It is dropped together with the connection.
#[derive(Debug)]
pub struct ConnectionPermit {
    line: Arc<AddressLimiter>,
    /// Whether the number of connections to the address is limited.
    counted: bool,
    /// Permit of the total limit, for connections that count there.
    place: Option<Place>,
}

impl ConnectionLimiter {
    /// Creates the limits. `limit` is the total number of connections for requests.
    pub fn new(limit: usize) -> Self {
        let total = Total { open: AtomicUsize::new(0), limit, closed: Notify::new() };
        ConnectionLimiter(Arc::new(Table { lines: Mutex::default(), total: Arc::new(total) }))
    }

    /// Takes a permit of the total limit. If none is free, an idle connection to any address is closed. Waits
    /// while all connections are in use. Cancel-safe.
    pub(super) async fn place(&self) -> Place {
        let total = &self.0.total;
        loop {
            let mut closed = pin!(total.closed.notified());
            // Registers for notifications before the check below, so that a connection that is closed in
            // between is not missed.
            closed.as_mut().enable();
            if let Some(place) = self.try_place() {
                return place;
            }
            self.close_idle();
            closed.await;
        }
    }

    /// Takes a permit of the total limit if one is free.
    pub(super) fn try_place(&self) -> Option<Place> {
        let total = &self.0.total;
        let next = |open| (open < total.limit).then_some(open + 1);
        total.open.fetch_update(SeqCst, SeqCst, next).ok().map(|_| Place(total.clone()))
    }

    /// Notifies one task that waits for a permit of the total limit that there is an idle connection to
    /// close.
    pub(super) fn notify_waiters(&self) {
        self.0.total.closed.notify_one();
    }

    /// Whether no permit of the total limit is free.
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

    /// Takes a permit for a connection to `address` that is opened outside of a pool. `limit` is the limit
    /// for all workers together. If it is reached, an idle connection is closed. Waits while all are in use.
    /// The connection does not count towards the total limit. Cancel-safe.
    pub async fn room(&self, address: SocketAddr, limit: Option<usize>) -> ConnectionPermit {
        let line = self.to(address);
        match limit {
            None => line.acquire_uncounted(),
            Some(limit) => line.acquire(limit).await,
        }
    }

    /// The limiter of `address`, created if there is none.
    pub(super) fn to(&self, address: SocketAddr) -> Arc<AddressLimiter> {
        let mut lines = self.lines();
        // An address that no pool or permit refers to has no connections, so its state can be created anew
        // later.
        lines.retain(|other, line| *other == address || Arc::strong_count(line) > 1);
        lines.entry(address).or_default().clone()
    }
}

impl AddressLimiter {
    /// Registers a worker's pool, whose idle connections may be closed to make room.
    pub(super) fn add(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// A permit without a limit.
    pub(super) fn acquire_uncounted(self: &Arc<Self>) -> ConnectionPermit {
        self.open.fetch_add(1, SeqCst);
        ConnectionPermit { line: self.clone(), counted: false, place: None }
    }

    /// A permit if fewer than `limit` connections are open.
    pub(super) fn try_acquire(self: &Arc<Self>, limit: usize) -> Option<ConnectionPermit> {
        let next = |open| (open < limit).then_some(open + 1);
        let entered = self.open.fetch_update(SeqCst, SeqCst, next).is_ok();
        entered.then(|| ConnectionPermit { line: self.clone(), counted: true, place: None })
    }

    /// A permit under a limit of `limit` connections. If the limit is reached, an idle connection of any
    /// worker is closed. Waits while all are in use. Cancel-safe.
    pub(super) async fn acquire(self: &Arc<Self>, limit: usize) -> ConnectionPermit {
        loop {
            let mut closed = pin!(self.closed.notified());
            // Registers for notifications before the check below, so that a connection that is closed in
            // between is not missed.
            closed.as_mut().enable();
            if let Some(permit) = self.try_acquire(limit) {
                return permit;
            }
            self.close_idle();
            closed.await;
        }
    }

    /// Notifies one waiting task that there is an idle connection to close.
    pub(super) fn look_again(&self) {
        self.closed.notify_one();
    }

    /// Closes an idle connection. Returns false if there is none.
    fn close_idle(&self) -> bool {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pools.iter().filter_map(Weak::upgrade).any(|pool| pool.close_one())
    }
}

impl Default for ConnectionLimiter {
    /// No total limit.
    fn default() -> Self {
        ConnectionLimiter::new(usize::MAX)
    }
}

impl ConnectionPermit {
    /// Adds a permit of the total limit.
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
