//! Load balancing: chooses the instance for the next request.

mod ring;
mod round_robin;
mod table;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::config::{self, Balance};
use crate::upstream::{Instance, InstanceId, Lease, SlotRequest, Upstream};
use table::{Hold, Table};

/// How often single candidates are tried before all instances are scanned.
const TRIES: usize = 4;

/// The balancer of one upstream. It is shared by all workers, so that the rotation is exact over all of them.
///
/// A choice takes no lock. It costs O(1), or O(log n) with least requests or hashing. It costs O(n) only when
/// most of the instances that are able to serve have no free slot or are backing off after failed connects.
#[derive(Debug)]
pub struct Balancer {
    upstream: Arc<Upstream>,
    turn: AtomicUsize,
    /// Position in a separate rotation for [`Balancer::foresee`].
    foreseen: AtomicUsize,
    table: ArcSwap<Table>,
    /// Held while a table is built, so that the table stored last has seen the latest changes.
    making: Mutex<Hold>,
}

/// The input of a choice.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The hash that maps the request to an instance. `None` if the request has none; the configured method
    /// then decides.
    pub key: Option<u64>,
    /// Instances that this request has already been sent to.
    pub tried: &'a [Arc<Instance>],
    pub now: Instant,
}

/// The result of a choice.
#[derive(Debug)]
pub enum Pick {
    Taken(Lease),
    /// All instances that are able to serve have no free slot, or none has passed a health check yet. A
    /// request that queues must wait for this.
    Full(SlotRequest),
    /// No instance is able to serve.
    None,
}

/// Instances that joined later than the others.
#[derive(Debug)]
pub struct Newcomers {
    instances: Vec<(InstanceId, u32)>,
    /// Their share of the total weight, 0 to 1.
    pub share: f64,
}

impl Newcomers {
    /// A random one of them, in proportion to the weights. `None` if there are none.
    pub fn pick(&self) -> Option<InstanceId> {
        let weight: u32 = self.instances.iter().map(|(_, weight)| weight).sum();
        let mut left = fastrand::u32(..weight.max(1));
        for (id, weight) in &self.instances {
            match left.checked_sub(*weight) {
                Some(less) => left = less,
                None => return Some(*id),
            }
        }
        None
    }
}

impl Pick {
    fn or_else(self, other: impl FnOnce() -> Pick) -> Pick {
        match self {
            Pick::None => other(),
            pick => pick,
        }
    }
}

impl Balancer {
    /// Builds the balancer for `config`. From `previous` it takes over instances with the same address, the
    /// wait queue and the position in the rotation.
    pub fn new(config: &config::Upstream, previous: Option<&Balancer>) -> Self {
        let upstream = Arc::new(Upstream::new(config, previous.map(|previous| &*previous.upstream)));
        let mut hold = previous.map(|previous| *previous.making()).unwrap_or_default();
        let balancer = Balancer {
            table: ArcSwap::from_pointee(Table::new(&upstream, None, &mut hold, Instant::now())),
            turn: AtomicUsize::new(previous.map_or(0, |previous| previous.turn.load(Relaxed))),
            foreseen: AtomicUsize::new(previous.map_or(0, |previous| previous.foreseen.load(Relaxed))),
            upstream,
            making: Mutex::new(hold),
        };
        balancer.tell_of_panic(previous.is_some_and(Balancer::is_panicking));
        balancer.upstream.group().rematch_waiters(balancer.upstream.instances());
        balancer
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Rebuilds the table. To be called after an instance's health, state or weight has changed.
    pub fn refresh(&self) {
        let mut hold = self.making();
        let previous = self.table.load_full();
        let table = Table::new(&self.upstream, Some(&previous), &mut hold, Instant::now());
        self.table.store(Arc::new(table));
        self.tell_of_panic(previous.panic);
        self.upstream.group().rematch_waiters(self.upstream.instances());
    }

    fn making(&self) -> MutexGuard<'_, Hold> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when new requests wait because no instance has passed a health check yet; `None` if they do not
    /// wait. At that time [`Balancer::refresh`] must be called. It lets them go to instances that may be able
    /// to serve.
    pub fn held_until(&self) -> Option<Instant> {
        self.table.load().held_until
    }

    /// Whether new requests go to instances that have not passed a health check, because there are no others.
    pub fn is_unproven(&self) -> bool {
        self.table.load().open.iter().any(|instance| instance.doubts().is_some())
    }

    /// Takes an instance that has not passed a health check yet, for a request that cannot wait until one
    /// has. `None` if there is none with a free slot.
    pub fn take_unproven(&self, wanted: Wanted<'_>) -> Option<Lease> {
        let table = self.table.load();
        let untried = table.unproven.iter().filter(|instance| !is_tried(instance, wanted.tried));
        untried.filter(|instance| instance.is_in_use()).find_map(Lease::take)
    }

    /// The instances that take new sessions and joined after `since` (Unix seconds).
    pub fn newcomers(&self, since: u64) -> Newcomers {
        let table = self.table.load();
        let later = table.open.iter().filter(|instance| instance.joined() > since);
        let instances: Vec<_> = later.map(|instance| (instance.id, instance.weight())).collect();
        let weight: u64 = instances.iter().map(|(_, weight)| u64::from(*weight)).sum();
        Newcomers { instances, share: weight as f64 / table.weight.max(1) as f64 }
    }

    /// Whether panic mode is active: too few instances are healthy, so health is ignored.
    pub fn is_panicking(&self) -> bool {
        self.table.load().panic
    }

    /// Logs once when panic mode begins, and once when it ends.
    fn tell_of_panic(&self, before: bool) {
        let table = self.table.load();
        let (upstream, healthy, ready) = (self.upstream.name(), table.healthy, table.ready);
        let panic_below = self.upstream.config.panic_below;
        match (before, table.panic) {
            (false, true) => tracing::error!(
                upstream,
                healthy,
                ready,
                panic_below,
                "panic: too few instances are fit to serve to believe it, so all of them get requests"
            ),
            (true, false) => {
                tracing::warn!(
                    upstream,
                    healthy,
                    ready,
                    panic_below,
                    "the panic is over: enough instances are fit to serve"
                )
            }
            _ => {}
        }
    }

    /// Chooses an instance that this request has not tried. Instances that are backing off after failed
    /// connects are used only if no other is able to serve.
    pub fn pick(&self, wanted: Wanted<'_>) -> Pick {
        let table = self.table.load();
        let Wanted { key, tried, now } = wanted;
        // If another upstream has taken over from this one, its table is no longer refreshed, and instances
        // in it may have been removed.
        let able = |instance: &Arc<Instance>| instance.is_in_use() && !is_tried(instance, tried);
        let usable = |instance: &Arc<Instance>| !instance.is_backing_off(now) && able(instance);
        if let Some(key) = key {
            return self.by_hash(&table, key, wanted).or_else(|| hold(&table, able, tried));
        }
        // Hashing without a key (the request has nothing to hash) falls back to round robin.
        let first = match &self.upstream.config.balance {
            Balance::LeastRequests => table.tournament.as_ref().and_then(|all| all.winner()),
            Balance::TwoChoices => two_choices(&table),
            Balance::Random => by_chance(&table),
            Balance::RoundRobin | Balance::Hash(_) => self.next_turn(&table),
        };
        let mut next = first;
        for _ in 0..=TRIES.min(table.cycle.len()) {
            let Some(instance) = next.and_then(|place| table.open.get(place)) else { break };
            if usable(instance)
                && has_its_share(instance, now)
                && let Some(lease) = Lease::take(instance)
            {
                return Pick::Taken(lease);
            }
            // The turn of an instance that cannot serve is skipped. The other instances then share its
            // requests evenly.
            next = self.next_turn(&table);
        }
        let start = self.turn.load(Relaxed);
        take_any(&table.open, start, usable, tried)
            .or_else(|| take_any(&table.reserve, start, usable, tried))
            .or_else(|| take_any(&table.open, start, able, tried))
            .or_else(|| hold(&table, able, tried))
    }

    /// Predicts where [`Balancer::pick`] would send a request without affinity, without sending it. It uses a
    /// separate rotation and ignores slots, slow start and the load bound of hashing.
    pub fn foresee(&self, key: Option<u64>, now: Instant) -> Option<InstanceId> {
        let table = self.table.load();
        let usable = |instance: &&Arc<Instance>| instance.is_open() && !instance.is_backing_off(now);
        if let Some(key) = key {
            let (ring, instances) = (table.ring.get(&self.upstream), self.upstream.instances());
            let mut preferred = ring.walk(key).filter_map(|place| instances.get(place));
            return preferred.find(usable).map(|instance| instance.id);
        }
        let turn = || turn_of(&table, self.foreseen.fetch_add(1, Relaxed));
        let mut next = match &self.upstream.config.balance {
            Balance::LeastRequests => table.tournament.as_ref().and_then(|all| all.winner()),
            Balance::TwoChoices => two_choices(&table),
            Balance::Random => by_chance(&table),
            Balance::RoundRobin | Balance::Hash(_) => turn(),
        };
        for _ in 0..=table.cycle.len() {
            let instance = next.and_then(|place| table.open.get(place))?;
            if usable(&instance) {
                return Some(instance.id);
            }
            next = turn();
        }
        None
    }

    /// Takes the instance of a sticky session. Returns [`Pick::None`] if it cannot serve or was tried
    /// already, and [`Pick::Full`] if it has no free slot.
    pub fn pick_tied(&self, instance: &Arc<Instance>, wanted: Wanted<'_>) -> Pick {
        if !instance.keeps_ties() || instance.is_backing_off(wanted.now) || is_tried(instance, wanted.tried) {
            return Pick::None;
        }
        Lease::take(instance).map_or_else(|| Pick::Full(SlotRequest::Only(instance.id)), Pick::Taken)
    }

    /// The first instance on the ring, starting at `key`, that can serve. With a load bound, instances above
    /// it are skipped; if all are above it, any open instance with a free slot is taken.
    fn by_hash(&self, table: &Table, key: u64, wanted: Wanted<'_>) -> Pick {
        let (ring, instances) = (table.ring.get(&self.upstream), self.upstream.instances());
        let bound = match &self.upstream.config.balance {
            Balance::Hash(hash) => hash.bound,
            _ => None,
        };
        let most = bound.map(|percent| self.average(table) * f64::from(percent) / 100.0);
        let able = || {
            let preferred = ring.walk(key).filter_map(|place| instances.get(place));
            preferred.filter(|instance| instance.takes_led() && !is_tried(instance, wanted.tried))
        };
        let ready = || able().filter(|instance| !instance.is_backing_off(wanted.now));
        let Some(most) = most else {
            return ready().next().or_else(|| able().next()).map_or(Pick::None, |instance| {
                Lease::take(instance).map_or_else(|| Pick::Full(SlotRequest::Led(instance.id)), Pick::Taken)
            });
        };
        let light = ready().find_map(|instance| {
            let below = (instance.load() as f64) < most * f64::from(instance.weight());
            below.then(|| Lease::take(instance)).flatten()
        });
        match light {
            Some(lease) => Pick::Taken(lease),
            None => take_any(&table.open, 0, |instance| !is_tried(instance, wanted.tried), wanted.tried),
        }
    }

    /// Requests in flight per unit of weight, including one more request.
    fn average(&self, table: &Table) -> f64 {
        (self.upstream.group().load() + 1) as f64 / table.weight.max(1) as f64
    }

    fn next_turn(&self, table: &Table) -> Option<usize> {
        turn_of(table, self.turn.fetch_add(1, Relaxed))
    }
}

fn turn_of(table: &Table, turn: usize) -> Option<usize> {
    table.cycle.get(turn % table.cycle.len().max(1)).map(|place| *place as usize)
}

fn by_chance(table: &Table) -> Option<usize> {
    let turn = (!table.cycle.is_empty()).then(|| fastrand::usize(..table.cycle.len()))?;
    table.cycle.get(turn).map(|place| *place as usize)
}

fn two_choices(table: &Table) -> Option<usize> {
    let (first, second) = (by_chance(table)?, by_chance(table)?);
    let load = |place: usize| {
        let instance = table.open.get(place)?;
        Some((instance.load() as u64 + 1, u64::from(instance.weight())))
    };
    let ((first_load, first_weight), (second_load, second_weight)) = (load(first)?, load(second)?);
    let is_lighter = second_load * first_weight < first_load * second_weight;
    Some(if is_lighter { second } else { first })
}

/// Whether an instance in slow start takes this request: at random, with the probability of its share.
fn has_its_share(instance: &Instance, now: Instant) -> bool {
    let share = instance.share(now);
    share >= 1.0 || fastrand::f32() < share
}

/// The first instance that is `usable` and has a free slot, starting at index `start`.
fn take_any(
    open: &[Arc<Instance>],
    start: usize,
    usable: impl Fn(&Arc<Instance>) -> bool,
    tried: &[Arc<Instance>],
) -> Pick {
    let (before, from) = open.split_at(start % open.len().max(1));
    let mut is_full = false;
    for instance in from.iter().chain(before).filter(|instance| usable(instance)) {
        match Lease::take(instance) {
            Some(lease) => return Pick::Taken(lease),
            None => is_full = true,
        }
    }
    match is_full {
        true => Pick::Full(SlotRequest::Any { except: ids(tried) }),
        false => Pick::None,
    }
}

/// The result if no instance takes new requests: the request waits if an instance may still pass its health
/// check.
fn hold(table: &Table, able: impl Fn(&Arc<Instance>) -> bool, tried: &[Arc<Instance>]) -> Pick {
    match table.unproven.iter().any(able) {
        true => Pick::Full(SlotRequest::Any { except: ids(tried) }),
        false => Pick::None,
    }
}

fn ids(instances: &[Arc<Instance>]) -> Vec<InstanceId> {
    instances.iter().map(|instance| instance.id).collect()
}

fn is_tried(instance: &Arc<Instance>, tried: &[Arc<Instance>]) -> bool {
    tried.iter().any(|other| Arc::ptr_eq(other, instance))
}

#[cfg(test)]
mod tests;
