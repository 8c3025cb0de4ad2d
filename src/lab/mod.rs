//! The laboratory: what is needed to try vestibule, to show it and to measure it.

pub mod demo;
pub mod stub;
