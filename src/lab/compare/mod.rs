//! The comparison: the same users with the same events, once in each session mode.

mod baseline;
mod comparison;
mod estimate;
mod event;
mod figure;
mod figures;
#[cfg(test)]
mod fixture;
mod idle;
mod machine;
mod mode;
mod model;
mod oracle;
mod plan;
mod published;
mod run;
mod stage;
mod status;
mod target;
mod verdict;

pub use baseline::{BaselineError, Regression, regressions};
pub use comparison::{CompareError, Compared, compare};
pub use estimate::{contrast, estimate};
pub use event::Event;
pub use figure::{Unit, number};
pub use mode::SessionMode;
pub use model::{
    Comparison, Contrast, Estimate, EventMark, Figure, Interval, Machine, ModeResult, Oracle, Run, Setup,
    Verdict,
};
pub use plan::{Plan, PlanError};
pub use published::{Assumption, Claim, Published};
pub use stage::{StageError, guard};
pub use status::Status;
pub use target::{Stubs, Target};
pub use verdict::verdict;
