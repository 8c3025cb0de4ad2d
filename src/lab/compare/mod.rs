//! The comparison: the same users, over the same events, once in each session mode.

mod baseline;
mod estimate;
mod figure;
#[cfg(test)]
mod fixture;
mod model;
mod verdict;

pub use baseline::{BaselineError, Regression, regressions};
pub use estimate::{contrast, estimate};
pub use figure::{Unit, number};
pub use model::{
    Comparison, Contrast, Estimate, EventMark, Figure, Interval, Machine, ModeResult, Oracle, Run, Setup,
    Verdict,
};
pub use verdict::verdict;
