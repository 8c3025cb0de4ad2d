//! Observability: diagnostics, access-log lines, histograms.

pub mod histogram;
pub mod lines;
pub mod logging;
