//! The instances that take new requests, prepared for choosing. An immutable value that is rebuilt when the
//! condition of an instance changes.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use crate::config::Balance;
use crate::upstream::{Instance, InstanceId, LeastLoadedIndex, Upstream};

use super::ring::Ring;
use super::round_robin::lay_out;

/// The instances that serve at present.
#[derive(Debug)]
pub(super) struct Table {
    /// Instances that take new requests.
    pub(super) open: Box<[Arc<Instance>]>,
    /// Total weight of `open`.
    pub(super) weight: u64,
    /// Backups. They are used only if no instance in `open` can be connected to. If `open` would be empty,
    /// they are in `open` instead.
    pub(super) reserve: Box<[Arc<Instance>]>,
    /// Instances that lack only a successful health check. Empty if another instance serves, and after the
    /// wait is over: they are in `open` then.
    pub(super) unproven: Box<[Arc<Instance>]>,
    /// Until when requests wait for one of `unproven` to pass its health check; `None` if they do not wait.
    pub(super) held_until: Option<Instant>,
    /// Indexes into `open`, each in proportion to its weight and evenly spaced.
    pub(super) cycle: Box<[u32]>,
    /// Over `open`; `None` unless the upstream balances by least requests.
    pub(super) tournament: Option<Arc<LeastLoadedIndex>>,
    /// Over all instances of the upstream, not only `open`, so that an outage moves only the keys of the
    /// failed instance.
    pub(super) ring: Arc<LazyRing>,
    /// Panic mode: too few instances are healthy, so health is ignored.
    pub(super) panic: bool,
    /// `ready` is the number of instances that the operator wants in use, `healthy` the number of those that
    /// are able to serve.
    pub(super) healthy: usize,
    pub(super) ready: usize,
}

impl Table {
    /// Builds the table for the condition of the instances at `now`. Also updates [`Instance::is_open`] of
    /// all instances.
    pub(super) fn new(upstream: &Upstream, previous: Option<&Table>, hold: &mut Hold, now: Instant) -> Self {
        let config = &upstream.config;
        let Candidates { mut open, mut reserve, mut unproven, panic, healthy, ready } =
            Candidates::of(upstream);
        let is_needed = open.is_empty() && reserve.is_empty() && !unproven.is_empty();
        let held_until = hold.until(is_needed, upstream, now);
        if is_needed && held_until.is_none() {
            open = std::mem::take(&mut unproven);
        } else if !is_needed {
            unproven.clear();
        }
        if open.is_empty() {
            std::mem::swap(&mut open, &mut reserve);
        }
        let ids: HashSet<InstanceId> = open.iter().map(|instance| instance.id).collect();
        upstream.instances().iter().for_each(|instance| instance.set_open(ids.contains(&instance.id)));
        let weights: Vec<u32> = open.iter().map(|instance| instance.weight()).collect();
        let is_least = config.balance == Balance::LeastRequests;
        Table {
            tournament: upstream.group().set_least_loaded_index(is_least.then_some(&open)),
            ring: LazyRing::new(upstream, previous.map(|previous| &previous.ring)),
            cycle: lay_out(&weights),
            weight: weights.iter().map(|weight| u64::from(*weight)).sum(),
            open: open.into(),
            reserve: reserve.into(),
            unproven: unproven.into(),
            held_until,
            panic,
            healthy,
            ready,
        }
    }
}

/// Since when no instance has passed a health check although some may still pass one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hold(Option<Instant>);

impl Hold {
    /// Until when requests wait. `None` if there is no need to wait, or if the time `unproven_after` is over.
    fn until(&mut self, is_needed: bool, upstream: &Upstream, now: Instant) -> Option<Instant> {
        if !is_needed {
            self.0 = None;
            return None;
        }
        let since = *self.0.get_or_insert(now);
        let check = upstream.config.health.as_ref()?;
        Some(since + check.unproven_after).filter(|until| *until > now)
    }
}

/// A ring that is built on first use, and rebuilt only when weights have changed.
#[derive(Debug)]
pub(super) struct LazyRing {
    weights: Box<[u32]>,
    ring: OnceLock<Ring>,
}

impl LazyRing {
    /// `previous` must be of the same upstream.
    fn new(upstream: &Upstream, previous: Option<&Arc<LazyRing>>) -> Arc<Self> {
        let weights = upstream.instances().iter().map(|instance| instance.weight()).collect();
        match previous {
            Some(previous) if previous.weights == weights => previous.clone(),
            _ => Arc::new(LazyRing { weights, ring: OnceLock::new() }),
        }
    }

    pub(super) fn get(&self, upstream: &Upstream) -> &Ring {
        self.ring.get_or_init(|| Ring::new(upstream.instances(), &self.weights))
    }
}

struct Candidates {
    open: Vec<Arc<Instance>>,
    /// Backups.
    reserve: Vec<Arc<Instance>>,
    /// Instances that lack only a successful health check, backups last.
    unproven: Vec<Arc<Instance>>,
    panic: bool,
    healthy: usize,
    ready: usize,
}

impl Candidates {
    /// Selects the instances that are able to serve from those the operator wants in use. In panic mode it
    /// selects all of these, except those that fault injection treats as dead.
    fn of(upstream: &Upstream) -> Self {
        let mut able: Vec<_> = upstream.members().filter(|(instance, _)| instance.is_in_use()).collect();
        let healthy = able.iter().filter(|(instance, _)| instance.is_fit()).count();
        let ready = able.len();
        let panic = healthy * 100 < ready * usize::from(upstream.config.panic_below);
        able.retain(|(instance, _)| instance.is_fit() || (panic && !instance.is_fenced()));
        let (proven, mut unproven): (Vec<_>, Vec<_>) =
            able.into_iter().partition(|(instance, _)| panic || instance.doubts().is_none());
        unproven.sort_by_key(|(_, config)| config.backup);
        let (reserve, open): (Vec<_>, Vec<_>) = proven.into_iter().partition(|(_, config)| config.backup);
        let [open, reserve, unproven] = [open, reserve, unproven]
            .map(|members| members.into_iter().map(|(instance, _)| Arc::clone(instance)).collect::<Vec<_>>());
        Candidates { open, reserve, unproven, panic, healthy, ready }
    }
}
