//! All connections of a process to one address, whichever worker has them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use super::pool::Pool;

/// The lines of a process, by address. Clones are the same lines.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<BTreeMap<SocketAddr, Arc<Line>>>>);

/// The connections to one address.
#[derive(Debug, Default)]
pub(super) struct Line {
    open: AtomicUsize,
    closed: Notify,
    pools: Mutex<Vec<Weak<Pool>>>,
}

/// A connection that is open, or is being opened; dropped with it.
#[derive(Debug)]
pub struct Permit(Arc<Line>);

impl Lines {
    /// Room for one more connection to `address`, where there may be `limit` of all workers together, for those who
    /// connect by themselves. When there is none, one that nobody uses is closed. Waits while all are in use.
    /// Cancel-safe.
    pub async fn room(&self, address: SocketAddr, limit: Option<usize>) -> Permit {
        let line = self.to(address);
        match limit {
            None => line.enter(),
            Some(limit) => line.make_room(limit).await,
        }
    }

    pub(super) fn to(&self, address: SocketAddr) -> Arc<Line> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A line that nobody holds has no connections, and needs not be the same later.
        lines.retain(|other, line| *other == address || Arc::strong_count(line) > 1);
        lines.entry(address).or_default().clone()
    }
}

impl Line {
    /// Adds a worker's pool, whose idle connections may be closed for others.
    pub(super) fn add(&self, pool: &Arc<Pool>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(Arc::downgrade(pool));
    }

    /// Room for one more connection.
    pub(super) fn enter(self: &Arc<Self>) -> Permit {
        self.open.fetch_add(1, SeqCst);
        Permit(self.clone())
    }

    /// Room for one more connection, if there are fewer than `limit`.
    pub(super) fn try_enter(self: &Arc<Self>, limit: usize) -> Option<Permit> {
        let next = |open| (open < limit).then_some(open + 1);
        self.open.fetch_update(SeqCst, SeqCst, next).ok().map(|_| Permit(self.clone()))
    }

    /// Room for one more connection where there may be `limit`: when there is none, one that nobody uses is closed, be
    /// it another worker's. Waits while all are in use. Cancel-safe.
    pub(super) async fn make_room(self: &Arc<Self>, limit: usize) -> Permit {
        loop {
            let closed = self.closed.notified();
            if let Some(permit) = self.try_enter(limit) {
                return permit;
            }
            if !self.close_idle() {
                closed.await;
            }
        }
    }

    fn close_idle(&self) -> bool {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone();
        pools.iter().filter_map(Weak::upgrade).any(|pool| pool.close_one())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
        self.0.closed.notify_one();
    }
}
