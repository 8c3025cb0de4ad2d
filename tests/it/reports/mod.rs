//! The report of a comparison: what it says, that it is safe to open, and that it can be read.

mod browser;
mod content;
mod sample;
