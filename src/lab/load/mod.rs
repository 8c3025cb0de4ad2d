//! The load generator: simulated users with cookies who log in, think, send requests, read streams to their
//! end, and detect lost sessions.
//!
//! Users are distributed over threads, each with its own runtime, records and connections. Their actions
//! follow from the seed (`decision`), the timing from the model: `closed` or `open`. A `user` performs one
//! action at a time. An `exchange` is one request on the user's connection (`wire`); the values that it
//! captures (`gathering`) are stored in the user's `values`. All results are counted in `record`.

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

/// A load test that has not started; [`run`](Load::run) executes it.
#[derive(Debug, Clone)]
pub struct Load {
    pub scenario: Scenario,
    pub target: Target,
    /// The same scenario and seed give the same decisions.
    pub seed: u64,
    /// Number of threads, at least 1. `None`: as many as the rate needs.
    pub threads: Option<u32>,
}
