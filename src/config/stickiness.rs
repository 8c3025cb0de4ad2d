//! Affinity in sticky mode. Part of the model.

use std::time::Duration;

use super::upstream::HashKey;

/// What binds a client to its instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stick {
    /// A sealed cookie of vestibule's own.
    Cookie,
    /// The application's cookie of this name. The sealed instance is appended to its value on the way to the
    /// client.
    AppCookie(String),
    /// The application's cookie of this name, whose value ends with a dot and the instance's name, set by the
    /// application itself.
    AppSuffix(String),
    /// Nothing is stored: a hash of a request property selects the instance.
    Hash(HashKey),
}

/// How a request is handled whose instance is not able to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLost {
    /// It goes to another instance, and the client is bound to that one.
    Rebalance,
    /// Respond with 503 until the instance is back or the operator removes it.
    Fail,
}

/// Moving sessions to instances that were added later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebalance {
    /// Sessions moved per second and process; at least 1.
    pub per_second: u32,
    /// Only sessions idle for longer than this are moved.
    pub idle_over: Duration,
}
