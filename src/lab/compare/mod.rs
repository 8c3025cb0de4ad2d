//! The comparison: the same users, over the same events, once in each session mode.

mod baseline;
mod estimate;
mod figure;
mod mode;
mod model;
mod stage;
mod target;
mod verdict;

pub use baseline::{BaselineError, Regression, regressions};
pub use estimate::{contrast, estimate};
pub use figure::Unit;
pub use mode::SessionMode;
pub use model::{
    Comparison, Contrast, Estimate, EventMark, Figure, Interval, Machine, ModeResult, Oracle, Run, Setup,
    Verdict,
};
pub use stage::{StageError, guard};
pub use target::{Stubs, Target};
pub use verdict::verdict;
