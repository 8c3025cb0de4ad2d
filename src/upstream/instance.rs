//! One server of an upstream: who it is, and everything that is known of it.

mod condition;
mod connects;
mod slots;
mod wishes;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use super::deadline::Orders;
use super::distinct_clients::DistinctClients;
use super::fresh_check::FreshCheck;
use super::health_state::HealthCell;
use super::load::Load;
use super::request_stats::RequestStats;
use super::shared::UpstreamShared;
use super::shared_slots::SharedSlots;
use super::streams::Streams;
use crate::config;

pub use condition::Condition;
use wishes::READY;

/// Names an instance by its address, the same in every process and after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

impl InstanceId {
    pub fn of(address: SocketAddr) -> Self {
        let hash = digest(&SHA256, address.to_string().as_bytes());
        InstanceId(hash.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

/// Least share of its requests that an instance gets while it starts slowly.
const LEAST_SHARE: f32 = 0.1;

/// One server. Shared by all workers and by all configurations it is a member in; every field a request reads is
/// an atomic.
#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub address: SocketAddr,
    /// `address` as text, for logs and metrics.
    pub label: String,
    pub(super) group: Arc<UpstreamShared>,
    /// Written by whoever performs the operator's wishes only; these three.
    weight: AtomicU32,
    slots: AtomicUsize,
    state: AtomicU8,
    orders: Mutex<Orders>,
    judgement: HealthCell,
    proof: FreshCheck,
    record: RequestStats,
    /// Nothing goes there, whatever else is known of it. Written by whoever performs the operator's wishes only.
    fenced: AtomicBool,
    /// Whether it is among those that new requests go to. Written by the balancer only.
    open: AtomicBool,
    /// Its place in the group's tournament. Written by the balancer only.
    place: AtomicU32,
    load: Load,
    /// Where other upstreams have an instance with this address.
    seats: ArcSwapOption<SharedSlots>,
    requests: AtomicU64,
    streams: Streams,
    pinned: DistinctClients,
    connect_failures: AtomicU32,
    /// Nobody listened at its address when it was last tried.
    refused: AtomicBool,
    /// Unix seconds.
    restarted: AtomicU64,
    /// Milliseconds after `born` before which no request should connect; 0 = no pause.
    retry_at: AtomicU64,
    /// Milliseconds after `born` when it came back, and how long it starts slowly from then; 0 = not at all.
    back_at: AtomicU64,
    slow_start: AtomicU64,
    /// Unix seconds. Written with `state`.
    joined: AtomicU64,
    born: Instant,
}

impl Instance {
    /// `joined`: see [`Instance::joined`].
    pub(super) fn new(config: &config::Instance, group: &Arc<UpstreamShared>, joined: u64) -> Self {
        let born = Instant::now();
        let instance = Instance {
            id: InstanceId::of(config.address),
            address: config.address,
            label: config.address.to_string(),
            group: group.clone(),
            weight: AtomicU32::new(config.weight),
            slots: AtomicUsize::new(usize::MAX),
            state: AtomicU8::new(READY),
            orders: Mutex::new(Orders { since: born, deadline: None }),
            judgement: HealthCell::default(),
            proof: FreshCheck::default(),
            record: RequestStats::default(),
            fenced: AtomicBool::new(false),
            open: AtomicBool::new(false),
            place: AtomicU32::new(u32::MAX),
            load: Load::default(),
            seats: ArcSwapOption::empty(),
            requests: AtomicU64::new(0),
            streams: Streams::default(),
            pinned: DistinctClients::new(born),
            connect_failures: AtomicU32::new(0),
            refused: AtomicBool::new(false),
            restarted: AtomicU64::new(0),
            retry_at: AtomicU64::new(0),
            back_at: AtomicU64::new(0),
            slow_start: AtomicU64::new(0),
            joined: AtomicU64::new(joined),
            born,
        };
        instance.set_slots(config.max_requests);
        instance.set_state(config.state);
        instance
    }

    pub(super) fn set_slow_start(&self, slow_start: Option<Duration>) {
        let millis = slow_start.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        self.slow_start.store(millis, Relaxed);
    }

    /// Whether new requests go to it.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Only the balancer calls this.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    /// The share of its usual requests that it should get now, up to 1: less while it starts slowly.
    pub fn share(&self, now: Instant) -> f32 {
        let (back_at, slow_start) = (self.back_at.load(Relaxed), self.slow_start.load(Relaxed));
        if back_at == 0 || slow_start == 0 {
            return 1.0;
        }
        let since = self.millis(now).saturating_sub(back_at);
        if since >= slow_start {
            self.back_at.store(0, Relaxed);
            return 1.0;
        }
        (since as f32 / slow_start as f32).max(LEAST_SHARE)
    }

    /// Of the requests under way, those that are streams at `now`: tunnels, event streams, and answers that are under way for
    /// [`STREAM_AFTER`](super::STREAM_AFTER).
    pub fn streams(&self, now: Instant) -> usize {
        self.streams.count(now)
    }

    /// Cuts the answers and tunnels that are under way; returns how many. Those that begin later are cut as well,
    /// until [`Instance::set_state`] says something else than [`InstanceState::Down`](config::InstanceState::Down). A
    /// client sees a cut answer as cut, never as complete.
    pub fn close_streams(&self) -> usize {
        self.streams.close()
    }

    /// Answers and tunnels that were ever cut by [`Instance::close_streams`].
    pub fn closed_streams(&self) -> u64 {
        self.streams.closed()
    }

    /// The clients that are tied to it.
    pub fn pinned(&self) -> &DistinctClients {
        &self.pinned
    }

    pub(super) fn streams_book(&self) -> &Streams {
        &self.streams
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
impl Instance {
    /// An instance of its own, for tests of others too.
    pub(crate) fn with_slots(max_requests: Option<usize>) -> Arc<Instance> {
        let address = SocketAddr::from(([127, 0, 0, 1], 5001));
        let config = config::Instance { max_requests, ..config::Instance::at(address) };
        Arc::new(Instance::new(&config, &Arc::default(), 0))
    }

    /// Stands for the health manager.
    pub(crate) fn set_healthy(&self, healthy: bool) -> bool {
        use super::health_state::Health;
        self.judge(if healthy { Health::Up } else { Health::Down }, "")
    }
}

#[cfg(test)]
mod tests;
