//! Endpoints for probes and monitoring.

mod canary_metrics;
mod cohort_metrics;
mod discovery_metrics;
mod metrics;
mod readyz;
mod upstream_metrics;

use http::StatusCode;

use super::Admin;
use super::reply::{Reply, of_type, text};

pub(super) use readyz::readyz;

/// All current metrics.
pub(super) fn metrics(admin: &Admin) -> Reply {
    match metrics::exposition(admin) {
        Ok(page) => of_type(metrics::CONTENT_TYPE, StatusCode::OK, page),
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n"),
    }
}
