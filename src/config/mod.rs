//! Configuration: read, parsed, validated whole, typed.

mod model;

pub use model::*;
