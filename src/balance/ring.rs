//! Consistent hashing: each instance has many points on a ring, and a key belongs to the next point clockwise
//! (Karger et al. 1997). When an instance is removed only its own keys move, each to the next instance on the
//! ring.

use std::sync::Arc;

use crate::upstream::{Instance, InstanceId};

/// Points on the ring over all instances. With this number the shares differ by a few percent.
const POINTS: usize = 1 << 16;
/// Lower limit of the points of an instance of average weight.
const LEAST_POINTS: usize = 40;

/// The points of the instances. The same instances and weights give the same ring in every process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ring {
    /// Position and instance index, sorted by position.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    /// Builds the ring. The number of points of an instance is proportional to its weight, at least 1 unless
    /// the weight is 0.
    pub(super) fn new(instances: &[Arc<Instance>], weights: &[u32]) -> Self {
        let total: usize = weights.iter().map(|weight| *weight as usize).sum();
        let average = (POINTS / instances.len().max(1)).max(LEAST_POINTS);
        let mut points = Vec::new();
        for ((instance, weight), place) in instances.iter().zip(weights).zip(0..) {
            let share = *weight as usize * instances.len() * average / total.max(1);
            let share = if *weight == 0 { 0 } else { share.max(1) };
            points.extend((0..share).map(|number| (point(instance.id, number), place)));
        }
        points.sort_unstable();
        Ring { points: points.into_boxed_slice() }
    }

    /// Indexes of instances in the order in which `key` prefers them. An index may occur several times.
    pub(super) fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|(position, _)| *position < mix(key));
        let (before, from) = self.points.split_at(start);
        from.iter().chain(before).map(|(_, place)| *place as usize)
    }
}

fn point(id: InstanceId, number: usize) -> u64 {
    mix(id.0 ^ mix(number as u64))
}

/// A 64-bit mixing function (the finalizer of SplitMix64, Steele et al. 2014).
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::upstream::Upstream;

    fn instances(weights: &[u32]) -> Vec<Arc<Instance>> {
        let instances = weights.iter().zip(5001..).map(|(weight, port)| config::Instance {
            weight: *weight,
            ..config::Instance::at(([127, 0, 0, 1], port).into())
        });
        let config = config::Upstream { instances: instances.collect(), ..config::Upstream::named("app") };
        Upstream::new(&config, None).instances().to_vec()
    }

    fn ring(instances: &[Arc<Instance>]) -> Ring {
        Ring::new(instances, &instances.iter().map(|instance| instance.weight()).collect::<Vec<_>>())
    }

    fn owner(ring: &Ring, key: u64) -> usize {
        ring.walk(key).next().unwrap()
    }

    #[test]
    fn shares_follow_the_weights() {
        let ring = ring(&instances(&[1, 2, 1]));
        let mut shares = [0u32; 3];
        (0..100_000).for_each(|key| shares[owner(&ring, key)] += 1);
        for (share, wanted) in shares.into_iter().zip([25_000u32, 50_000, 25_000]) {
            assert!(share.abs_diff(wanted) < wanted / 20, "{shares:?}");
        }
    }

    #[test]
    fn a_lost_instance_moves_its_own_keys_only_and_spreads_them() {
        let all = instances(&[1; 4]);
        let (whole, without) = (ring(&all), ring(&all[..3]));
        let mut heirs = [0u32; 3];
        for key in 0..40_000 {
            let preferred: Vec<_> = whole.walk(key).collect();
            let heir = *preferred.iter().find(|place| **place != 3).unwrap();
            if owner(&whole, key) == 3 {
                heirs[heir] += 1;
            } else {
                assert_eq!(heir, owner(&whole, key));
            }
        }
        assert!(heirs.iter().all(|share| *share > 2_500), "{heirs:?}");
        let moved = (0..40_000)
            .filter(|key| owner(&whole, *key) != 3 && owner(&without, *key) != owner(&whole, *key));
        // The other instances gain points, so a few of their keys move among them.
        assert!(moved.count() < 4_000);
    }

    #[test]
    fn every_process_has_the_same_ring() {
        assert_eq!(ring(&instances(&[1, 5])), ring(&instances(&[1, 5])));
        let places: Vec<_> = (0..6).map(|key| owner(&ring(&instances(&[1, 5])), key)).collect();
        assert_eq!(places, [1, 1, 1, 1, 1, 1]);
    }
}
