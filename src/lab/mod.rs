//! The laboratory: what is needed to try vestibule, to show it and to measure it.

pub mod compare;
pub mod demo;
pub mod load;
pub mod report;
pub mod stub;
