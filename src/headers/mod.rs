//! Header rules as plain functions over `HeaderMap`, independent of sessions and upstreams.

pub mod claims;
pub mod cookie;
pub mod forwarded;
pub mod framing;
pub mod hop_by_hop;
pub mod host;
pub mod lines;
pub mod name;
pub mod set_cookie;
pub mod target;
