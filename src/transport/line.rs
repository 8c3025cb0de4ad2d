//! All connections of a process to one address, whichever worker has them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
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
pub struct Permit {
    line: Arc<Line>,
    /// Whether the number is bounded.
    counted: bool,
}

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
        Permit { line: self.clone(), counted: false }
    }

    /// Room for one more connection, if there are fewer than `limit`.
    pub(super) fn try_enter(self: &Arc<Self>, limit: usize) -> Option<Permit> {
        let next = |open| (open < limit).then_some(open + 1);
        let entered = self.open.fetch_update(SeqCst, SeqCst, next).is_ok();
        entered.then(|| Permit { line: self.clone(), counted: true })
    }

    /// Room for one more connection where there may be `limit`: when there is none, one that nobody uses is closed, be
    /// it another worker's. Waits while all are in use. Cancel-safe.
    pub(super) async fn make_room(self: &Arc<Self>, limit: usize) -> Permit {
        loop {
            let mut closed = pin!(self.closed.notified());
            // From here on a close is for us, whoever else waits.
            closed.as_mut().enable();
            if let Some(permit) = self.try_enter(limit) {
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

    fn close_idle(&self) {
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let _ = pools.iter().filter_map(Weak::upgrade).any(|pool| pool.close_one());
    }
}

impl Permit {
    pub(super) fn is_counted(&self) -> bool {
        self.counted
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.line.open.fetch_sub(1, SeqCst);
        self.line.closed.notify_one();
    }
}
