//! What the operator says about ties to instances, in sticky mode. Part of the model.

use std::time::Duration;

use super::upstream::HashKey;

/// What ties a client to its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stick {
    /// A sealed cookie of our own.
    Cookie,
    /// The application's cookie of this name, to which we append the sealed instance for the client to keep.
    AppCookie(String),
    /// The application's cookie of this name, to which it appends a dot and the instance's name itself.
    AppSuffix(String),
    /// Nothing is remembered: the hash of a property of the request leads to the instance.
    Hash(HashKey),
}

/// What becomes of a request whose instance cannot serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLost {
    /// It goes to another, and the client is tied to that.
    Rebalance,
    /// 503, until the instance is back or the operator takes it out.
    Fail,
}

/// Moving sessions to instances that came later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// Sessions moved, per process; at least 1.
    pub per_second: u32,
    /// Only sessions that nobody has used for this long are moved.
    pub idle_over: Duration,
}
