//! The load generator: users with cookies who log in, think, ask, read streams to their end, and notice when the
//! application has forgotten them.
//!
//! Users are spread over threads, each with a runtime, records and connections of its own. What they do follows from
//! the seed (`decision`), when they do it from the model: `closed` or `open`. A `user` does one action at a time; an
//! `exchange` is one request on its `wire`; what it takes from the answer (`gathering`) is in the user's `values` from
//! then on. Everything is counted in `record`.

mod account;
mod arrival;
mod closed;
mod cookie_date;
mod decision;
mod event;
mod exchange;
mod failure;
mod gathering;
mod house;
mod jar;
mod open;
mod outgoing;
mod pacer;
mod problem;
mod progress;
mod reading;
mod record;
mod request;
mod result;
mod run;
mod scenarios;
mod shared;
mod stream;
mod target;
mod tls;
mod user;
mod values;
mod wire;

use crate::config::Scenario;

pub use progress::Progress;
pub use result::{ActionResult, Histogram, LoadResult, Loss, Sessions, Slice};
pub use run::LoadError;
pub use scenarios::{BUILT_IN, BuiltIn, ScenarioError, scenario};
pub use target::{Target, TargetError, TargetOptions};
pub use tls::TlsError;

/// A load that has not begun; [`run`](Load::run) lets it happen.
#[derive(Debug, Clone)]
pub struct Load {
    pub scenario: Scenario,
    pub target: Target,
    /// The same scenario and seed make the same decisions.
    pub seed: u64,
    /// Threads that the users are spread over, at least 1; `None`: as many as the rate needs.
    pub threads: Option<u32>,
}
