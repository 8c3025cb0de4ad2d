//! Which instance takes the next request.

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

/// How often chance is tried before all instances are looked at.
const TRIES: usize = 4;

/// The balancer of one upstream. Shared by all workers, so that the order is exact over all of them.
///
/// A choice takes no lock: O(1), with the fewest requests or by hash O(log n); more only when most of the instances
/// that are able to serve have no slot left or do not let anybody connect.
#[derive(Debug)]
pub struct Balancer {
    upstream: Arc<Upstream>,
    turn: AtomicUsize,
    /// Turns of a rotation of its own, for [`Balancer::foresee`].
    foreseen: AtomicUsize,
    table: ArcSwap<Table>,
    /// Locked while a table is made, so that the last one made knows the latest changes.
    making: Mutex<Hold>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What leads to an instance, where nothing else does: a hash.
    pub key: Option<u64>,
    /// Instances that this request went to already.
    pub tried: &'a [Arc<Instance>],
    pub now: Instant,
}

/// What a choice came to.
#[derive(Debug)]
pub enum Pick {
    Taken(Lease),
    /// Those who could serve have no free slot; whoever waits, waits for this.
    Full(SlotRequest),
    /// Nobody is able to serve.
    None,
}

/// Instances that came later than others.
#[derive(Debug)]
pub struct Newcomers {
    instances: Vec<(InstanceId, u32)>,
    /// Their part of the weight of all.
    pub share: f64,
}

impl Newcomers {
    /// One of them by chance, as often as the weight says.
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
    /// A balancer for what `config` describes, which takes over from `previous`: instances with the same address and
    /// the place in the rotation are kept.
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

    /// To be called after the standing of an instance has changed: its health, its state, its weight.
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

    /// Until when new requests wait for a check to find an instance good, as none has been. When that time has come,
    /// [`Balancer::refresh`] lets them go to those that may be.
    pub fn held_until(&self) -> Option<Instant> {
        self.table.load().held_until
    }

    /// Whether new requests go to instances that no check has found good, as there are no others.
    pub fn is_unproven(&self) -> bool {
        self.table.load().open.iter().any(|instance| instance.doubts().is_some())
    }

    /// Takes an instance that no check has found good yet, while requests wait for that, for one that cannot wait.
    pub fn take_unproven(&self, wanted: Wanted<'_>) -> Option<Lease> {
        let table = self.table.load();
        let untried = table.unproven.iter().filter(|instance| !is_tried(instance, wanted.tried));
        untried.filter(|instance| instance.is_in_use()).find_map(Lease::take)
    }

    /// The instances that take new sessions and came after `since` (Unix seconds).
    pub fn newcomers(&self, since: u64) -> Newcomers {
        let table = self.table.load();
        let later = table.open.iter().filter(|instance| instance.joined() > since);
        let instances: Vec<_> = later.map(|instance| (instance.id, instance.weight())).collect();
        let weight: u64 = instances.iter().map(|(_, weight)| u64::from(*weight)).sum();
        Newcomers { instances, share: weight as f64 / table.weight.max(1) as f64 }
    }

    /// Whether verdicts are not believed at present, because too few instances would be left.
    pub fn is_panicking(&self) -> bool {
        self.table.load().panic
    }

    /// Says it once when a panic begins, and once when it is over.
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

    /// Chooses an instance that this request has not tried: one that takes new requests, else one that is only
    /// backing off after failed connects.
    pub fn pick(&self, wanted: Wanted<'_>) -> Pick {
        let table = self.table.load();
        let Wanted { key, tried, now } = wanted;
        // Of an upstream that another has taken over from, instances may be gone.
        let able = |instance: &Arc<Instance>| instance.is_in_use() && !is_tried(instance, tried);
        let usable = |instance: &Arc<Instance>| !instance.is_backing_off(now) && able(instance);
        if let Some(key) = key {
            return self.by_hash(&table, key, wanted).or_else(|| hold(&table, able, tried));
        }
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
            // Turns of those that cannot serve are used up, so that the others share them evenly.
            next = self.next_turn(&table);
        }
        let start = self.turn.load(Relaxed);
        take_any(&table.open, start, usable, tried)
            .or_else(|| take_any(&table.reserve, start, usable, tried))
            .or_else(|| take_any(&table.open, start, able, tried))
            .or_else(|| hold(&table, able, tried))
    }

    /// Where [`Balancer::pick`] would send a request that nobody tied, without sending it there: turns are those of a
    /// rotation that only such questions use, and slots, slow starts and bounds are not looked at.
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

    /// Takes the instance a client is tied to, unless it is unable to serve or was tried already.
    pub fn pick_tied(&self, instance: &Arc<Instance>, wanted: Wanted<'_>) -> Pick {
        if !instance.keeps_ties() || instance.is_backing_off(wanted.now) || is_tried(instance, wanted.tried) {
            return Pick::None;
        }
        Lease::take(instance).map_or_else(|| Pick::Full(SlotRequest::Only(instance.id)), Pick::Taken)
    }

    /// The first instance on the ring from `key` on that can serve and, if there is a bound, is not overloaded.
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

    /// Requests under way per weight, with one more.
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

/// While an instance starts slowly, only some of the requests that it would get.
fn has_its_share(instance: &Instance, now: Instant) -> bool {
    let share = instance.share(now);
    share >= 1.0 || fastrand::f32() < share
}

/// The first that is `usable` and has a free slot, from `start` on.
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

/// Nobody serves, but somebody may be found good soon.
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
