//! `POST /api/v1/reload` and `POST /api/v1/upgrade`.

use std::path::{Path, PathBuf};

use http::{Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::admin::Admin;
use crate::admin::reply::{self, Reply};

use super::{Problem, auth, body};

/// Preconditions of a call; the body is optional.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assumption {
    /// The configuration file that the caller expects to be read.
    config: Option<PathBuf>,
}

const EXPECTED: &str = "{} or {\"config\": \"/absolute/path\"}, or nothing";

#[derive(Serialize)]
struct Reloaded {
    status: &'static str,
    changes: Vec<String>,
}

#[derive(Serialize)]
struct Upgraded {
    status: &'static str,
    /// The id of the process that now accepts clients.
    process: u32,
}

/// Reloads the configuration: 200 with the changes, 422 with the reason that the previous one stays in use.
pub(in crate::admin) async fn reload(admin: &Admin, request: Request<Incoming>) -> Reply {
    if let Err(problem) = check(admin, request).await {
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

/// Starts an upgrade: 200 when the new process has taken over, 503 with the reason that this one keeps
/// serving.
pub(in crate::admin) async fn upgrade(admin: &Admin, request: Request<Incoming>) -> Reply {
    if let Err(problem) = check(admin, request).await {
        return problem.into();
    }
    match admin.process.upgrade().await {
        Ok(process) => {
            reply::json("application/json", StatusCode::OK, &Upgraded { status: "upgraded", process })
        }
        Err(reason) => Problem::NotUpgraded(reason).into(),
    }
}

/// Checks the token and the expected configuration file. Without the latter check a caller who expects
/// another file would get no error although that file is not read.
async fn check(admin: &Admin, request: Request<Incoming>) -> Result<(), Problem> {
    let (head, body) = request.into_parts();
    auth::check(admin.shared.plan.load_full().config.admin.as_ref(), &head.headers)?;
    let assumed: Assumption = match body.is_end_stream() {
        true => Assumption::default(),
        false => body::json(&head.headers, body, EXPECTED).await?,
    };
    let Some(wanted) = assumed.config else { return Ok(()) };
    match admin.process.source() {
        Some(source) if is_same(source, &wanted) => Ok(()),
        source => {
            let shown = source.map(|source| source.display().to_string());
            Err(Problem::OtherConfig(shown.unwrap_or_else(|| "no file".to_owned())))
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    whole(one) == whole(other)
}
