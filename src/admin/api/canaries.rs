//! `GET` and `POST /api/v1/canaries`.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use crate::admin::Admin;
use crate::admin::reply::{self, Reply};
use crate::canary::sequential::Bounds;
use crate::canary::{Canary, Evidence, Tally};
use crate::config::Percent;

use super::{Problem, auth, body};

const EXPECTED: &str =
    r#"{"route": "...", "percent": 0 to 100} or {"route": "...", "action": "promote" or "rollback"}"#;
const NO_CANARY: Problem =
    Problem::Invalid("this is no route with a canary; GET /api/v1/canaries lists them");

/// The body of a call that changes a canary.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    route: String,
    percent: Option<f64>,
    action: Option<Action>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Promote,
    Rollback,
}

/// The requested change.
#[derive(Debug, PartialEq)]
enum Order {
    Set(Percent),
    Do(Action),
}

#[derive(Serialize)]
struct List {
    canaries: Vec<Row>,
}

/// The current state of one canary.
#[derive(Serialize)]
struct Row {
    route: String,
    stable: String,
    canary: String,
    state: &'static str,
    percent: f64,
    /// At the current share, or the data of the last decision.
    comparison: Option<Comparison>,
}

#[derive(Serialize)]
struct Comparison {
    held_seconds: u64,
    canary: Shown,
    stable: Shown,
    error_increase: Interval,
    latency_increase: Option<Interval>,
}

#[derive(Serialize)]
struct Shown {
    requests: u64,
    failed: u64,
    /// Geometric mean of the times to first byte.
    first_byte_ms: Option<f64>,
}

/// A fraction with its confidence bounds under the sequential test.
#[derive(Serialize)]
struct Interval {
    estimate: f64,
    from: f64,
    to: f64,
}

/// Responds with the state of every canary.
pub(in crate::admin) async fn list_canaries(admin: &Admin, request: Request<Incoming>) -> Reply {
    let plan = admin.shared.plan.load_full();
    match auth::check(plan.config.admin.as_ref(), request.headers()) {
        Ok(()) => {
            let list = List { canaries: plan.canaries().map(row).collect() };
            reply::json("application/json", StatusCode::OK, &list)
        }
        Err(problem) => problem.into(),
    }
}

/// Changes one canary at once for all new requests. Responds with its new state.
pub(in crate::admin) async fn steer_canary(admin: &Admin, request: Request<Incoming>) -> Reply {
    match steer(admin, request).await {
        Ok(row) => reply::json("application/json", StatusCode::OK, &row),
        Err(problem) => {
            tracing::info!(outcome = problem.outcome(), "canary call refused");
            problem.into()
        }
    }
}

async fn steer(admin: &Admin, request: Request<Incoming>) -> Result<Row, Problem> {
    let (head, body) = request.into_parts();
    auth::check(admin.shared.plan.load_full().config.admin.as_ref(), &head.headers)?;
    let call: Call = body::json(&head.headers, body, EXPECTED).await?;
    let order = call.order()?;
    let plan = admin.shared.plan.load_full();
    let canary = plan.canaries().find(|canary| canary.route == call.route).ok_or(NO_CANARY)?;
    match order {
        Order::Set(percent) => canary.set(percent),
        Order::Do(Action::Promote) => canary.promote(),
        Order::Do(Action::Rollback) => canary.roll_back(),
    }
    Ok(row(canary))
}

impl Call {
    fn order(&self) -> Result<Order, Problem> {
        match (self.percent, self.action) {
            (Some(percent), None) => {
                let percent = Percent::new(percent);
                percent.map(Order::Set).ok_or(Problem::Invalid("the percent is not from 0 to 100"))
            }
            (None, Some(action)) => Ok(Order::Do(action)),
            _ => Err(Problem::Malformed(EXPECTED)),
        }
    }
}

fn row(canary: &Canary) -> Row {
    let (state, percent) = canary.live();
    Row {
        route: canary.route.clone(),
        stable: canary.stable.clone(),
        canary: canary.canary.clone(),
        state: state.as_str(),
        percent: percent.value(),
        comparison: canary.evidence().map(comparison),
    }
}

fn comparison(evidence: Evidence) -> Comparison {
    // Times are compared by their logarithms, so the bounds are converted back to ratios.
    let relative = |bounds: Bounds| Bounds {
        estimate: bounds.estimate.exp_m1(),
        lower: bounds.lower.exp_m1(),
        upper: bounds.upper.exp_m1(),
    };
    Comparison {
        held_seconds: evidence.held.as_secs(),
        canary: shown(&evidence.tallies.canary),
        stable: shown(&evidence.tallies.stable),
        error_increase: interval(evidence.errors),
        latency_increase: evidence.latency.map(relative).map(interval),
    }
}

fn shown(tally: &Tally) -> Shown {
    let mean = (tally.times.count > 0).then(|| tally.times.mean().exp() * 1000.0);
    Shown { requests: tally.trials.requests, failed: tally.trials.failed, first_byte_ms: mean.map(rounded) }
}

fn interval(bounds: Bounds) -> Interval {
    Interval { estimate: rounded(bounds.estimate), from: rounded(bounds.lower), to: rounded(bounds.upper) }
}

/// Rounds to four decimals.
fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Order, Problem> {
        let call: Call = serde_json::from_str(body).map_err(|_| Problem::Malformed(EXPECTED))?;
        call.order()
    }

    #[test]
    fn golden_a_comparison_is_written_like_this() {
        let side = |requests, first_byte_ms| Shown { requests, failed: 1, first_byte_ms };
        let increase = || Interval { estimate: 0.5, from: 0.25, to: 0.75 };
        let comparison = Comparison {
            held_seconds: 1,
            canary: side(2, Some(1.5)),
            stable: side(3, None),
            error_increase: increase(),
            latency_increase: Some(increase()),
        };
        let expected = r#"{"held_seconds":1,"canary":{"requests":2,"failed":1,"first_byte_ms":1.5},"#
            .to_owned()
            + r#""stable":{"requests":3,"failed":1,"first_byte_ms":null},"#
            + r#""error_increase":{"estimate":0.5,"from":0.25,"to":0.75},"#
            + r#""latency_increase":{"estimate":0.5,"from":0.25,"to":0.75}}"#;
        assert_eq!(serde_json::to_string(&comparison).unwrap(), expected);
    }

    #[test]
    fn a_call_gives_one_order() {
        let percent = Percent::new(12.5).unwrap();
        assert_eq!(read(r#"{"route": "/", "percent": 12.5}"#), Ok(Order::Set(percent)));
        assert_eq!(read(r#"{"route": "/", "percent": 0}"#), Ok(Order::Set(Percent::NONE)));
        assert_eq!(read(r#"{"route": "/", "action": "promote"}"#), Ok(Order::Do(Action::Promote)));
        assert_eq!(read(r#"{"action": "rollback", "route": "/"}"#), Ok(Order::Do(Action::Rollback)));
    }

    #[test]
    fn anything_else_is_refused() {
        for body in [
            "",
            "{}",
            r#"{"route": "/"}"#,
            r#"{"percent": 10}"#,
            r#"{"route": "/", "percent": 10, "action": "promote"}"#,
            r#"{"route": "/", "percent": "10"}"#,
            r#"{"route": "/", "action": "Promote"}"#,
            r#"{"route": "/", "percent": 10, "x": 1}"#,
        ] {
            assert_eq!(read(body), Err(Problem::Malformed(EXPECTED)), "{body}");
        }
        for percent in ["-1", "100.1", "1e9"] {
            let body = format!(r#"{{"route": "/", "percent": {percent}}}"#);
            assert!(matches!(read(&body), Err(Problem::Invalid(_))), "{body}");
        }
    }
}
