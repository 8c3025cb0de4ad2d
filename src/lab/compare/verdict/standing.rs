//! How two modes compare in one figure.

use crate::lab::compare::{Comparison, Estimate, Figure, contrast};

/// The result for one mode's figure relative to another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Better,
    Worse,
    /// There is a difference, but it is irrelevant in practice.
    Trifle,
    /// The interval contains zero.
    Unshown,
    /// A single round has no interval.
    Single,
}

/// One figure of `other` relative to `base`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Beside {
    pub(super) standing: Standing,
    /// `other` minus `base`.
    pub(super) difference: Estimate,
}

/// Compares `other` with `base` over the rounds that both have. `None` without a common round.
pub(super) fn beside(comparison: &Comparison, figure: Figure, other: &str, base: &str) -> Option<Beside> {
    let (bases, others) = (comparison.rounds(base, figure), comparison.rounds(other, figure));
    let both = bases.iter().filter_map(|(round, base)| Some((*base, *others.get(round)?)));
    let (bases, others): (Vec<f64>, Vec<f64>) = both.unzip();
    if bases.is_empty() {
        return None;
    }
    let difference = contrast(&bases, &others);
    let mean = bases.iter().sum::<f64>() / bases.len() as f64;
    Some(Beside { standing: standing(figure, mean, &difference), difference })
}

fn standing(figure: Figure, base: f64, difference: &Estimate) -> Standing {
    let Some(interval) = difference.interval else { return Standing::Single };
    if interval.low <= 0.0 && 0.0 <= interval.high {
        Standing::Unshown
    } else if difference.mean.abs() <= figure.trifle(base) {
        Standing::Trifle
    } else if (difference.mean > 0.0) == figure.more_is_better() {
        Standing::Better
    } else {
        Standing::Worse
    }
}
