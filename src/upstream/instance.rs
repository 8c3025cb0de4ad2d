//! One server of an upstream: identity, condition, requests under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::config;

/// Names an instance by its address, the same in every process and after every restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId(pub u64);

impl InstanceId {
    fn of(address: SocketAddr) -> Self {
        let hash = digest(&SHA256, address.to_string().as_bytes());
        InstanceId(hash.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
    }
}

/// What is known of an instance's ability to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// No checks are configured, or they succeed.
    Up,
    /// Checks fail.
    Down,
    /// Checks do not fail, but connecting did; it is left alone for a while.
    BackingOff,
}

impl Condition {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Down => "down",
            Condition::BackingOff => "backing_off",
        }
    }
}

const UP: u8 = 0;
const DOWN: u8 = 1;

/// Pause after a failed connect: doubles from the first to the last.
const CONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

/// One server. Shared by all workers; every field a request reads is an atomic.
#[derive(Debug)]
pub struct Instance {
    pub id: InstanceId,
    pub address: SocketAddr,
    /// `address` as text, for logs and metrics.
    pub label: String,
    pub weight: u32,
    /// Written by the instance's health check only.
    health: AtomicU8,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    connect_failures: AtomicU32,
    /// Milliseconds after `born` before which no request should connect; 0 = no pause.
    retry_at: AtomicU64,
    born: Instant,
}

impl Instance {
    pub(super) fn new(config: &config::Instance) -> Self {
        let label = config.address.to_string();
        Instance {
            id: InstanceId::of(config.address),
            address: config.address,
            label,
            weight: config.weight,
            health: AtomicU8::new(UP),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            connect_failures: AtomicU32::new(0),
            retry_at: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    pub fn condition(&self, now: Instant) -> Condition {
        if self.health.load(Relaxed) == DOWN {
            return Condition::Down;
        }
        let retry_at = self.retry_at.load(Relaxed);
        if retry_at != 0 && self.millis(now) < retry_at { Condition::BackingOff } else { Condition::Up }
    }

    /// The health check's verdict; only the check calls this. A good verdict ends a pause.
    pub fn set_healthy(&self, healthy: bool) {
        self.health.store(if healthy { UP } else { DOWN }, Relaxed);
        if healthy {
            self.connected();
        }
    }

    /// A connection was made: the instance is there.
    pub fn connected(&self) {
        if self.connect_failures.load(Relaxed) != 0 {
            self.connect_failures.store(0, Relaxed);
            self.retry_at.store(0, Relaxed);
        }
    }

    /// A connection could not be made: new requests leave the instance alone for a while, longer each time.
    /// Of many that fail together, one counts.
    pub fn connect_failed(&self, now: Instant) {
        if self.condition(now) == Condition::BackingOff {
            return;
        }
        let failures = self.connect_failures.fetch_add(1, Relaxed);
        let pause = u64::try_from(CONNECT_BACKOFF.delay(failures).as_millis()).unwrap_or(u64::MAX);
        self.retry_at.store(self.millis(now).saturating_add(pause.max(1)), Relaxed);
    }

    /// Requests under way, streams and upgraded connections included.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Requests ever given to this instance.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }
}

/// One request under way on an instance; dropping it is its end.
#[derive(Debug)]
pub struct Lease(Arc<Instance>);

impl Lease {
    pub fn new(instance: &Arc<Instance>) -> Self {
        instance.in_flight.fetch_add(1, Relaxed);
        instance.requests.fetch_add(1, Relaxed);
        Lease(instance.clone())
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Arc<Instance> {
        let config = config::Instance { address: "127.0.0.1:5001".parse().unwrap(), weight: 1 };
        Arc::new(Instance::new(&config))
    }

    #[test]
    fn identity_depends_on_the_address_alone() {
        assert_eq!(instance().id, instance().id);
        assert_ne!(
            InstanceId::of("127.0.0.1:5001".parse().unwrap()),
            InstanceId::of("127.0.0.1:5002".parse().unwrap())
        );
    }

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let instance = instance();
        let leases = [Lease::new(&instance), Lease::new(&instance)];
        assert_eq!((instance.in_flight(), instance.requests()), (2, 2));
        drop(leases);
        assert_eq!((instance.in_flight(), instance.requests()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_connect_pauses_for_longer_each_time_and_a_success_ends_it() {
        let instance = instance();
        let now = Instant::now();
        instance.connect_failed(now);
        assert_eq!(instance.condition(now), Condition::BackingOff);
        assert_eq!(instance.condition(now + Duration::from_secs(10)), Condition::Up);
        instance.connected();
        assert_eq!(instance.condition(now), Condition::Up);
    }

    #[test]
    fn a_failed_check_outranks_everything_and_a_good_one_ends_a_pause() {
        let instance = instance();
        let now = Instant::now();
        instance.connect_failed(now);
        instance.set_healthy(false);
        assert_eq!(instance.condition(now), Condition::Down);
        instance.set_healthy(true);
        assert_eq!(instance.condition(now), Condition::Up);
    }
}
