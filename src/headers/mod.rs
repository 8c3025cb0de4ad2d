//! Header fields as the wire has them.

pub mod cookie;
