//! The request: from a client's head to the last byte of its answer.
//!
//! [`Service::handle`] gives every request exactly one answer and one access-log line; `pipeline` is the
//! story in between.

mod access_log;
mod attempt;
mod canary;
mod clean;
mod client;
mod cohort;
pub mod drill;
mod duplicate;
mod error;
mod exchange;
mod forward;
#[cfg(test)]
mod golden;
mod hash_key;
mod header_rules;
mod interim;
mod labels;
pub mod metrics;
pub mod operate;
mod outcome;
mod pipeline;
mod plan;
mod repeat;
mod respond;
mod route;
mod route_headers;
mod sending;
mod service;
mod tie;
mod upgrade;

pub use canary::{SideCounts, steer_canaries};
pub use clean::MAX_METHOD;
pub use client::Client;
pub use cohort::{CohortCounts, Other};
pub use labels::RouteLabels;
pub use plan::Plan;
pub use respond::ResponseBody;
pub use route::Router;
pub use service::{Service, Shared, Worker};
pub use upgrade::Upgrade;
