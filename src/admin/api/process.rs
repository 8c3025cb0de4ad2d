//! `POST /api/v1/reload` and `POST /api/v1/upgrade`.

use http::{HeaderMap, StatusCode};
use serde::Serialize;

use crate::admin::Admin;
use crate::admin::reply::{self, Reply};

use super::{Problem, auth};

#[derive(Serialize)]
struct Reloaded {
    status: &'static str,
    changes: Vec<String>,
}

#[derive(Serialize)]
struct Upgraded {
    status: &'static str,
    /// The process that accepts clients now.
    process: u32,
}

/// Reads the configuration again: 200 with what has changed, 422 with why it stays as it was.
pub(in crate::admin) async fn reload(admin: &Admin, headers: &HeaderMap) -> Reply {
    if let Err(problem) = check(admin, headers) {
        return problem.into();
    }
    match admin.process.reload().await {
        Ok(changes) => {
            let status = if changes.is_empty() { "unchanged" } else { "reloaded" };
            reply::json("application/json", StatusCode::OK, &Reloaded { status, changes })
        }
        Err(reason) => Problem::NotReloaded(reason).into(),
    }
}

/// Lets a new process take over: 200 when it has, 503 with why this one goes on.
pub(in crate::admin) async fn upgrade(admin: &Admin, headers: &HeaderMap) -> Reply {
    if let Err(problem) = check(admin, headers) {
        return problem.into();
    }
    match admin.process.upgrade().await {
        Ok(process) => {
            reply::json("application/json", StatusCode::OK, &Upgraded { status: "upgraded", process })
        }
        Err(reason) => Problem::NotUpgraded(reason).into(),
    }
}

fn check(admin: &Admin, headers: &HeaderMap) -> Result<(), Problem> {
    auth::check(admin.shared.plan.load().config.admin.as_ref(), headers)
}
