//! What operators see: diagnostics, access-log lines, numbers.

pub mod histogram;
pub mod lines;
pub mod logging;
