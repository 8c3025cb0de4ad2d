//! `POST /api/v1/drills`: fault-injection drills.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{Problem, auth, body};
use crate::admin::Admin;
use crate::admin::reply::{self, Reply};
use crate::config;
use crate::proxy::drill::{DrillRequest, LONGEST, Target, preview};

const EXPECTED: &str = r#"{"action": "measure" or "begin", "store": true} or with "instance": "IP:PORT or NAME" and where wanted "upstream": "NAME", "open": "cut" or "keep"; to begin also "for": "10s"; or {"action": "continue" or "end", "drill": ID}"#;

const TIME: Problem =
    Problem::Invalid("\"for\" is to be from 1ms to 5m: a whole number and ms, s or m, such as \"10s\"");
const TARGET: Problem = Problem::Invalid("name what is to fail: \"store\": true or an \"instance\"");
const NO_ID: Problem = Problem::Invalid("the id of the \"drill\" is missing");

/// The body of a call; unknown fields are rejected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    action: Action,
    #[serde(default)]
    store: bool,
    instance: Option<String>,
    upstream: Option<String>,
    open: Option<Open>,
    r#for: Option<String>,
    drill: Option<u64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// Previews what a drill would affect, and starts the baseline measurement.
    Measure,
    Begin,
    /// Heartbeat: keeps the drill running.
    Continue,
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Open {
    Cut,
    Keep,
}

/// Previews, begins, continues or ends a drill. Responds with the preview or the drill's current report.
pub(in crate::admin) async fn rehearse(admin: &Admin, request: Request<Incoming>) -> Reply {
    match carry_out(admin, request).await {
        Ok(reply) => reply,
        Err(problem) => {
            tracing::info!(outcome = problem.outcome(), "drills");
            problem.into()
        }
    }
}

async fn carry_out(admin: &Admin, request: Request<Incoming>) -> Result<Reply, Problem> {
    let config = admin.shared.plan.load_full().config.clone();
    let (head, body) = request.into_parts();
    auth::check(config.admin.as_ref(), &head.headers)?;
    let call = body::json::<Call, _>(&head.headers, body, EXPECTED).await?;
    let drills = &admin.shared.drills;
    let id = match call.action {
        Action::Measure => {
            let preview = preview(&admin.shared, &call.target()?).map_err(Problem::Drill)?;
            drills.measure(&admin.shards);
            return Ok(reply::json("application/json", StatusCode::OK, &preview));
        }
        Action::Begin => admin.process.drill(call.order()?).await.map_err(Problem::Drill)?,
        Action::Continue => {
            let id = call.drill.ok_or(NO_ID)?;
            drills.heartbeat(id).map_err(Problem::Drill)?;
            id
        }
        Action::End => {
            let id = call.drill.ok_or(NO_ID)?;
            admin.process.end_drill(id).await.map_err(Problem::Drill)?;
            id
        }
    };
    let account = drills.account(id, &admin.shared, &admin.shards).map_err(Problem::Drill)?;
    Ok(reply::json("application/json", StatusCode::OK, &account))
}

impl Call {
    fn target(&self) -> Result<Target, Problem> {
        match (self.store, &self.instance) {
            (true, None) => Ok(Target::Store),
            (false, Some(name)) => Ok(Target::Instance {
                upstream: self.upstream.clone(),
                name: name.clone(),
                cut: self.open != Some(Open::Keep),
            }),
            _ => Err(TARGET),
        }
    }

    fn order(&self) -> Result<DrillRequest, Problem> {
        let time = self.r#for.as_deref().and_then(config::duration);
        let time = time.filter(|time| !time.is_zero() && *time <= LONGEST).ok_or(TIME)?;
        Ok(DrillRequest { target: self.target()?, time })
    }
}
