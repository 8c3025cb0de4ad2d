//! The comparison: the same users, over the same events, once in each session mode.

mod model;

pub use model::{
    Comparison, Contrast, Estimate, EventMark, Figure, Machine, ModeResult, Oracle, Run, Setup, Verdict,
};
