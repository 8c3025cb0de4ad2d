//! Request processing, from the client's request head to the last byte of the response.
//!
//! [`Service::handle`] produces exactly one response and one access-log line per request. The steps in
//! between are in `pipeline`.

mod access_log;
mod attempt;
mod canary;
mod clean;
mod client;
mod cohort;
mod context;
pub mod drill;
mod error;
mod forward;
#[cfg(test)]
mod golden;
mod hash_key;
mod header_rules;
pub mod instance_admin;
mod interim;
mod labels;
pub mod metrics;
mod outlier_report;
mod pipeline;
mod replayable;
mod respond;
mod retry_loop;
mod retry_policy;
mod route;
mod route_headers;
mod runtime_config;
mod service;
mod sticky_binding;
mod upgrade;

pub use canary::{SideCounts, steer_canaries};
pub use clean::MAX_METHOD;
pub use client::Client;
pub use cohort::{CohortCounts, OtherModeOutcome};
pub use labels::RouteLabels;
pub use respond::ResponseBody;
pub use route::Router;
pub use runtime_config::RuntimeConfig;
pub use service::{Service, Shared, Worker};
pub use upgrade::Upgrade;
