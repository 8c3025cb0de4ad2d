//! Finds the instance with the fewest requests in flight: a tournament tree of atomics.
//!
//! Every instance is a leaf. Every inner node holds the index of the better of its two children, so the root
//! holds the best of all. A change of one leaf re-evaluates the nodes on its path to the root: O(log n),
//! without a lock. After a thread has written a node, it reads both children again and repeats if the result
//! differs. With concurrent updates the last writer therefore leaves the correct winner.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use super::instance::{Instance, InstanceId};

/// Lower bits of a key: when the instance was last chosen. Among equal loads the one chosen longest ago wins.
const TURN_BITS: u32 = 36;
const TURN_MASK: u64 = (1 << TURN_BITS) - 1;
/// Largest value of the bits above the turn.
const MAX_LOAD: u64 = (1 << (64 - TURN_BITS)) - 1;
/// Loads are compared as requests per weight, in units of 1/`PARTS`.
const PARTS: u64 = 1000;
/// No instance. Fills the leaves up to the next power of two.
const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
pub struct LeastLoadedIndex {
    /// Key (load, then turn) of each instance. The lowest wins.
    keys: Box<[AtomicU64]>,
    /// Id and weight of each instance.
    entrants: Box<[(InstanceId, u32)]>,
    /// Index of the winner per node. Node 1 is the root, the children of node n are 2n and 2n + 1, and nodes
    /// from `leaves` on are leaves.
    winners: Box<[AtomicU32]>,
    leaves: usize,
    turn: AtomicU64,
}

impl LeastLoadedIndex {
    /// Builds the tree for the present loads of `entrants`. Their weights are fixed from then on.
    pub(super) fn new(entrants: &[Arc<Instance>]) -> Self {
        let leaves = entrants.len().next_power_of_two();
        let keys = entrants.iter().zip(0..);
        let tournament = LeastLoadedIndex {
            keys: keys
                .map(|(instance, place)| AtomicU64::new(key(instance, instance.weight(), place)))
                .collect(),
            entrants: entrants.iter().map(|instance| (instance.id, instance.weight())).collect(),
            winners: (0..leaves).map(|_| AtomicU32::new(NOBODY)).collect(),
            leaves,
            turn: AtomicU64::new(entrants.len() as u64),
        };
        (1..leaves).rev().for_each(|node| tournament.replay(node));
        tournament
    }

    /// The index of the least loaded instance; `None` if there are no instances.
    pub fn winner(&self) -> Option<usize> {
        Some(self.winner_of(1)).filter(|winner| *winner != NOBODY).map(|winner| winner as usize)
    }

    /// Records that the instance was chosen.
    pub(super) fn took(&self, instance: &Instance) {
        let turn = self.turn.fetch_add(1, SeqCst);
        self.set(instance, |_| turn);
    }

    /// Records that the load of the instance has changed.
    pub(super) fn update(&self, instance: &Instance) {
        self.set(instance, |turn| turn);
    }

    fn set(&self, instance: &Instance, turn: impl Fn(u64) -> u64) {
        let place = instance.place();
        let (Some(own), Some((id, weight))) = (self.keys.get(place), self.entrants.get(place)) else {
            return;
        };
        if *id != instance.id {
            // The instance is no longer in this tree, and its index belongs to another one.
            return;
        }
        loop {
            let loaded = instance.load();
            let old = own.load(SeqCst);
            own.store(key(instance, *weight, turn(old & TURN_MASK)), SeqCst);
            if instance.load() == loaded {
                break;
            }
        }
        let mut node = (self.leaves + place) / 2;
        while node > 0 {
            self.replay(node);
            node /= 2;
        }
    }

    /// Stores the better child of `node`, and repeats until that still holds after the store.
    fn replay(&self, node: usize) {
        let Some(winner) = self.winners.get(node) else { return };
        loop {
            let better = self.better_child(node);
            winner.store(better, SeqCst);
            if self.better_child(node) == better {
                return;
            }
        }
    }

    fn better_child(&self, node: usize) -> u32 {
        let (left, right) = (self.winner_of(2 * node), self.winner_of(2 * node + 1));
        if self.key_of(right) < self.key_of(left) { right } else { left }
    }

    fn winner_of(&self, node: usize) -> u32 {
        match node.checked_sub(self.leaves) {
            None => self.winners.get(node).map_or(NOBODY, |winner| winner.load(SeqCst)),
            Some(place) if place < self.keys.len() => u32::try_from(place).unwrap_or(NOBODY),
            Some(_) => NOBODY,
        }
    }

    fn key_of(&self, place: u32) -> u64 {
        self.keys.get(place as usize).map_or(u64::MAX, |key| key.load(SeqCst))
    }
}

fn key(instance: &Instance, weight: u32, turn: u64) -> u64 {
    load(instance, weight).min(MAX_LOAD) << TURN_BITS | (turn & TURN_MASK)
}

/// Load including one more request. Instances without load all count 0, whatever their weight.
fn load(instance: &Instance, weight: u32) -> u64 {
    match instance.load() as u64 {
        0 => 0,
        some => (some + 1) * PARTS / u64::from(weight.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config;
    use crate::upstream::{Lease, Upstream};

    fn upstream(weights: &[u32]) -> (Upstream, Arc<LeastLoadedIndex>) {
        let instances = weights.iter().zip(5001..).map(|(weight, port)| config::Instance {
            weight: *weight,
            ..config::Instance::at(([127, 0, 0, 1], port).into())
        });
        let config = config::Upstream { instances: instances.collect(), ..config::Upstream::named("app") };
        let upstream = Upstream::new(&config, None);
        let tournament = upstream.group().set_least_loaded_index(Some(upstream.instances())).unwrap();
        (upstream, tournament)
    }

    #[test]
    fn without_load_everybody_has_a_turn() {
        let (upstream, tournament) = upstream(&[1; 5]);
        for turn in 0..20 {
            let place = tournament.winner().unwrap();
            assert_eq!(place, turn % 5);
            drop(Lease::take(&upstream.instances()[place]));
        }
    }

    #[test]
    fn a_heavier_instance_carries_more() {
        let (upstream, tournament) = upstream(&[3, 1]);
        let leases: Vec<_> = (0..40)
            .map(|_| Lease::take(&upstream.instances()[tournament.winner().unwrap()]).unwrap())
            .collect();
        assert_eq!(upstream.instances()[0].in_flight(), 30);
        drop(leases);
    }

    #[test]
    fn many_at_once_leave_the_truth() {
        let (upstream, tournament) = upstream(&[1; 9]);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (instances, tournament) = (upstream.instances(), &tournament);
                scope.spawn(move || {
                    let mut chance = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for _ in 0..20_000 {
                        match chance.bool() || held.is_empty() {
                            true => held.push(Lease::take(&instances[tournament.winner().unwrap()])),
                            false => drop(held.swap_remove(chance.usize(..held.len()))),
                        }
                    }
                });
            }
        });
        for load in 0..3 {
            let leases: Vec<_> = (0..9)
                .map(|_| Lease::take(&upstream.instances()[tournament.winner().unwrap()]).unwrap())
                .collect();
            assert!(upstream.instances().iter().all(|instance| instance.in_flight() == load + 1));
            leases.into_iter().for_each(std::mem::forget);
        }
    }

    proptest! {
        #[test]
        fn the_winner_has_the_least_load_for_its_weight(
            weights in prop::collection::vec(1u32..=1000, 1..40),
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200),
        ) {
            let (upstream, tournament) = upstream(&weights);
            let instances = upstream.instances();
            let mut held = Vec::new();
            for (take, which) in steps {
                if take || held.is_empty() {
                    held.push(Lease::take(&instances[which.index(instances.len())]));
                } else {
                    held.swap_remove(which.index(held.len()));
                }
                let load = |place: usize| load(&instances[place], weights[place]);
                let least = (0..instances.len()).map(load).min().unwrap();
                prop_assert_eq!(load(tournament.winner().unwrap()), least);
            }
        }
    }
}
