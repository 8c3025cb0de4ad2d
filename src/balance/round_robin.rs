//! Smooth weighted round robin as a table: the whole cycle is computed once, so a turn is one atomic add.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One cycle of indexes. Each index occurs exactly in proportion to its weight, as evenly spaced as possible.
///
/// Earliest deadline first. Index i of n with weight w has its k-th turn at (k + phase) / w of the cycle. Its
/// phase is (i + 1) / (n + 1), so that the turns of equal weights do not coincide. Times are compared as
/// fractions of integers, so rounding never decides.
pub(super) fn lay_out(weights: &[u32]) -> Box<[u32]> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let step = weights.len() as u64 + 1;
    let mut due: BinaryHeap<Reverse<Turn>> = weights
        .iter()
        .zip(0..)
        .filter(|(weight, _)| **weight > 0)
        .map(|(weight, index)| {
            Reverse(Turn { at: u64::from(index) + 1, weight: u64::from(weight / divisor), index })
        })
        .collect();
    let total: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let mut cycle = Vec::new();
    for _ in 0..total {
        let Some(Reverse(turn)) = due.pop() else { break };
        cycle.push(turn.index);
        due.push(Reverse(Turn { at: turn.at + step, ..turn }));
    }
    cycle.into_boxed_slice()
}

/// An index and when its next turn is due: `at / (weight * (n + 1))` of a cycle.
#[derive(PartialEq, Eq)]
struct Turn {
    at: u64,
    weight: u64,
    index: u32,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let (own, others) = (self.at * other.weight, other.at * self.weight);
        own.cmp(&others).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heavy_turns_are_spread_over_the_cycle() {
        assert_eq!(&*lay_out(&[5, 1, 1]), [0, 0, 0, 1, 0, 2, 0]);
        assert_eq!(&*lay_out(&[200, 100]), [0, 0, 1]);
        assert_eq!(&*lay_out(&[7, 7, 7]), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn every_cycle_is_exact_and_no_prefix_runs_ahead(weights in prop::collection::vec(1u32..50, 1..12)) {
            let cycle = lay_out(&weights);
            let divisor = weights.iter().copied().fold(0, gcd);
            let total: u32 = weights.iter().sum::<u32>() / divisor;
            prop_assert_eq!(cycle.len(), total as usize);
            let mut seen = vec![0u32; weights.len()];
            for (turn, index) in cycle.iter().enumerate() {
                seen[*index as usize] += 1;
                let fair = f64::from(weights[*index as usize] / divisor) * (turn + 1) as f64 / f64::from(total);
                prop_assert!((f64::from(seen[*index as usize]) - fair).abs() < weights.len() as f64);
            }
            for (seen, weight) in seen.iter().zip(&weights) {
                prop_assert_eq!(*seen, weight / divisor);
            }
        }
    }
}
