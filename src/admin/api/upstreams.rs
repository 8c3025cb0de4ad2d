//! `/api/v1/upstreams`: the state of the instances, and changing it.

mod order;
mod report;

use std::net::SocketAddr;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{Problem, auth, body};
use crate::admin::Admin;
use crate::admin::reply::{self, Reply};
use order::{Call, EXPECTED};
use report::Report;

/// The current state of all upstreams and their instances.
pub(in crate::admin) fn list_upstreams(admin: &Admin, request: &Request<Incoming>) -> Reply {
    let config = admin.shared.plan.load_full().config.clone();
    match auth::check(config.admin.as_ref(), request.headers()) {
        Ok(()) => tell(admin, None),
        Err(problem) => problem.into(),
    }
}

/// Changes the state or the weight of an instance. The response lists the upstreams that contain it.
pub(in crate::admin) async fn order_instance(admin: &Admin, request: Request<Incoming>) -> Reply {
    match carry_out(admin, request).await {
        Ok(reply) => reply,
        Err(problem) => {
            tracing::info!(outcome = problem.outcome(), "upstreams");
            problem.into()
        }
    }
}

async fn carry_out(admin: &Admin, request: Request<Incoming>) -> Result<Reply, Problem> {
    let config = admin.shared.plan.load_full().config.clone();
    let (head, body) = request.into_parts();
    auth::check(config.admin.as_ref(), &head.headers)?;
    let call = body::json::<Call, _>(&head.headers, body, EXPECTED).await?;
    let order = call.order(Instant::now())?;
    let address = admin.process.order(order).await.map_err(Problem::Order)?;
    Ok(tell(admin, Some(address)))
}

/// Reports all instances, or only those at one address.
fn tell(admin: &Admin, only: Option<SocketAddr>) -> Reply {
    let report = Report::of(&admin.shared.plan.load(), Instant::now(), only);
    reply::json("application/json", StatusCode::OK, &report)
}
