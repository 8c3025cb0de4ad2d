//! The instances that new requests go to, prepared for choosing: one immutable value, made anew when the standing of an
//! instance changes.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use crate::config::Balance;
use crate::upstream::{Instance, InstanceId, Tournament, Upstream};

use super::ring::Ring;
use super::round_robin::lay_out;

/// Who serves at present.
#[derive(Debug)]
pub(super) struct Table {
    /// Instances that new requests go to.
    pub(super) open: Box<[Arc<Instance>]>,
    /// Of all of these.
    pub(super) weight: u64,
    /// Backups that nobody needs as long as one of `open` can be reached.
    pub(super) reserve: Box<[Arc<Instance>]>,
    /// Places in `open`, each as often as its weight says, evenly spaced.
    pub(super) cycle: Box<[u32]>,
    pub(super) tournament: Option<Arc<Tournament>>,
    /// Over all instances of the upstream, so that only those who lose theirs move.
    pub(super) ring: Arc<LazyRing>,
    /// Whether verdicts are not believed, because too few instances would be left.
    pub(super) panic: bool,
    /// Of `ready` instances that the operator wants in use, those that are fit to serve.
    pub(super) healthy: usize,
    pub(super) ready: usize,
}

impl Table {
    /// The table for the present standing of the instances.
    pub(super) fn new(upstream: &Upstream, previous: Option<&Table>) -> Self {
        let config = &upstream.config;
        let Able { open, reserve, panic, healthy, ready } = Able::of(upstream);
        let ids: HashSet<InstanceId> = open.iter().map(|instance| instance.id).collect();
        upstream.instances().iter().for_each(|instance| instance.set_open(ids.contains(&instance.id)));
        let weights: Vec<u32> = open.iter().map(|instance| instance.weight()).collect();
        let is_least = config.balance == Balance::LeastRequests;
        Table {
            tournament: upstream.group().set_tournament(is_least.then_some(&open)),
            ring: LazyRing::new(upstream, previous.map(|previous| &previous.ring)),
            cycle: lay_out(&weights),
            weight: weights.iter().map(|weight| u64::from(*weight)).sum(),
            open: open.into(),
            reserve: reserve.into(),
            panic,
            healthy,
            ready,
        }
    }
}

/// A ring that is made when it is first used, and again only when weights have changed.
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

struct Able {
    open: Vec<Arc<Instance>>,
    reserve: Vec<Arc<Instance>>,
    panic: bool,
    healthy: usize,
    ready: usize,
}

impl Able {
    /// Of the ready instances the healthy ones, or all when too few are healthy; of these the backups only when no
    /// other is left.
    fn of(upstream: &Upstream) -> Self {
        let mut able: Vec<_> = upstream.members().filter(|(instance, _)| instance.is_in_use()).collect();
        let is_fit = |instance: &Instance| instance.is_healthy() && !instance.is_fenced();
        let healthy = able.iter().filter(|(instance, _)| is_fit(instance)).count();
        let ready = able.len();
        let panic = healthy * 100 < ready * usize::from(upstream.config.panic_below);
        able.retain(|(instance, _)| is_fit(instance) || (panic && !instance.is_fenced()));
        let (reserve, open): (Vec<_>, Vec<_>) = able.into_iter().partition(|(_, config)| config.backup);
        let [open, reserve] = [open, reserve]
            .map(|members| members.into_iter().map(|(instance, _)| Arc::clone(instance)).collect::<Vec<_>>());
        match open.is_empty() {
            true => Able { open: reserve, reserve: open, panic, healthy, ready },
            false => Able { open, reserve, panic, healthy, ready },
        }
    }
}
