//! One instance (backend server) of an upstream: its identity and all its run-time state.

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

/// Identifies an instance by its address. The id is the same in every process and after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

impl InstanceId {
    /// The first 64 bits of the SHA-256 of the address as text.
    pub fn of(address: SocketAddr) -> Self {
        let hash = digest(&SHA256, address.to_string().as_bytes());
        InstanceId(hash.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

/// Smallest share of its requests that an instance gets during slow start.
const LEAST_SHARE: f32 = 0.1;

/// One instance. It is shared by all workers and by all configurations that contain it. Every field that a
/// request reads is an atomic.
#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub address: SocketAddr,
    /// `address` as text, for logs and metrics.
    pub label: String,
    pub(super) group: Arc<UpstreamShared>,
    /// `weight`, `slots` and `state` are written only by the code that applies the operator's settings.
    weight: AtomicU32,
    slots: AtomicUsize,
    state: AtomicU8,
    orders: Mutex<Orders>,
    judgement: HealthCell,
    proof: FreshCheck,
    record: RequestStats,
    /// Fault injection: no request is sent to the instance, whatever its health. Written only by the code
    /// that applies the operator's settings.
    fenced: AtomicBool,
    /// Whether the instance takes new requests. Written only by the balancer.
    open: AtomicBool,
    /// Index of the instance in the group's [`LeastLoadedIndex`](super::LeastLoadedIndex). Written only by
    /// the balancer.
    place: AtomicU32,
    load: Load,
    /// Set if other upstreams have an instance with the same address.
    seats: ArcSwapOption<SharedSlots>,
    requests: AtomicU64,
    streams: Streams,
    pinned: DistinctClients,
    connect_failures: AtomicU32,
    /// Whether the last connect was refused.
    refused: AtomicBool,
    /// Unix seconds; 0 = never.
    restarted: AtomicU64,
    /// Milliseconds after `born`. Until then no request should connect; 0 = no pause.
    retry_at: AtomicU64,
    /// Milliseconds after `born` when the instance became able to serve again (0 = no slow start is running),
    /// and the length of the slow start in milliseconds (0 = none configured).
    back_at: AtomicU64,
    slow_start: AtomicU64,
    /// Unix seconds. Written together with `state`.
    joined: AtomicU64,
    born: Instant,
}

impl Instance {
    /// For `joined` see [`Instance::joined`].
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

    /// Whether the instance takes new requests.
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// To be called by the balancer only.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Relaxed);
    }

    /// The fraction of its usual requests that the instance should get at `now`: 0.1 to 1 during slow start,
    /// else 1.
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

    /// Number of requests in flight that count as streams at `now`: tunnels, event streams, and responses
    /// that have been in flight for [`STREAM_AFTER`](super::STREAM_AFTER).
    pub fn streams(&self, now: Instant) -> usize {
        self.streams.count(now)
    }

    /// Aborts all responses and tunnels in flight and returns how many. Those that begin later are aborted
    /// too, until [`Instance::set_state`] sets a state other than
    /// [`InstanceState::Down`](config::InstanceState::Down). The client sees an aborted response as
    /// truncated, never as complete.
    pub fn close_streams(&self) -> usize {
        self.streams.close()
    }

    /// Total number of responses and tunnels aborted by [`Instance::close_streams`].
    pub fn closed_streams(&self) -> u64 {
        self.streams.closed()
    }

    /// The clients with affinity to the instance.
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
    /// An instance in an upstream of its own, for tests in this and other modules.
    pub(crate) fn with_slots(max_requests: Option<usize>) -> Arc<Instance> {
        let address = SocketAddr::from(([127, 0, 0, 1], 5001));
        let config = config::Instance { max_requests, ..config::Instance::at(address) };
        Arc::new(Instance::new(&config, &Arc::default(), 0))
    }

    /// Sets the health in place of the health manager.
    pub(crate) fn set_healthy(&self, healthy: bool) -> bool {
        use super::health_state::Health;
        self.judge(if healthy { Health::Up } else { Health::Down }, "")
    }
}

#[cfg(test)]
mod tests;
