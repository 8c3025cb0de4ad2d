//! The readiness endpoint.

use http::StatusCode;

use crate::admin::Admin;
use crate::admin::reply::{Reply, text};
use crate::config::Mode;
use crate::proxy::RuntimeConfig;

/// A readiness condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Clients are accepted.
    Accepting,
    /// The session store responds.
    Store,
    /// Every upstream with health checks has an instance that has passed one.
    Instances,
}

const CONDITIONS: [Condition; 3] = [Condition::Accepting, Condition::Store, Condition::Instances];

/// `Ok` with a short status when the condition is met, `Err` with the reason otherwise.
type State = Result<&'static str, String>;

impl Condition {
    fn name(self) -> &'static str {
        match self {
            Condition::Accepting => "accepting",
            Condition::Store => "store",
            Condition::Instances => "instances",
        }
    }

    /// Whether readiness requires the condition. Other conditions are only reported. The store is not
    /// required by default: its outage affects every vestibule alike, and some requests are served without
    /// it.
    fn is_required(self, admin: &Admin) -> bool {
        let config = &admin.shared.plan.load().config.admin;
        match self {
            Condition::Accepting => true,
            Condition::Store => config.as_ref().is_some_and(|admin| !admin.ready_without_store),
            // Required only while requests are held for it. Otherwise requests are served with unproven
            // instances, and another vestibule would have no better ones.
            Condition::Instances => {
                admin.shared.plan.load().balancers().iter().any(|one| one.held_until().is_some())
            }
        }
    }

    async fn state(self, admin: &Admin) -> State {
        match self {
            Condition::Accepting if admin.readiness.is_ready() => Ok("ok"),
            Condition::Accepting => Err("not serving yet, or draining".to_owned()),
            Condition::Store if !admin.shared.plan.load().modes.include(Mode::Shared) => Ok("not used"),
            Condition::Store => {
                let answered = admin.sessions.ping(&admin.shared).await;
                answered.map(|()| "ok").map_err(|error| error.to_string())
            }
            Condition::Instances => instances(&admin.shared.plan.load()),
        }
    }
}

fn instances(plan: &RuntimeConfig) -> State {
    let balancers = plan.balancers();
    if balancers.iter().all(|balancer| balancer.upstream().config.health.is_none()) {
        return Ok("not checked");
    }
    let problems: Vec<_> = balancers
        .iter()
        .filter_map(|balancer| {
            let what = match balancer.held_until() {
                Some(_) => "no instance has passed a check yet, and requests wait for that",
                None if balancer.is_unproven() => "serves with instances that have passed no check",
                None => return None,
            };
            Some(format!("{}: {what}", balancer.upstream().name()))
        })
        .collect();
    if problems.is_empty() { Ok("ok") } else { Err(problems.join("; ")) }
}

/// Responds with 200 when every required condition is met, otherwise with 503. With `verbose` in the query
/// all conditions are checked and reported, one line each.
pub(in crate::admin) async fn readyz(admin: &Admin, query: Option<&str>) -> Reply {
    let verbose = query.is_some_and(is_verbose);
    let (mut is_ready, mut lines) = (true, String::new());
    for condition in CONDITIONS {
        let required = condition.is_required(admin);
        if !required && !verbose {
            continue;
        }
        let state = condition.state(admin).await;
        is_ready &= state.is_ok() || !required;
        lines.push_str(&line(condition, required, &state));
    }
    let (status, verdict) = match is_ready {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    let details = if verbose { lines.as_str() } else { "" };
    text(status, format!("{verdict}{details}"))
}

fn is_verbose(query: &str) -> bool {
    query.split('&').any(|pair| pair.split('=').next() == Some("verbose"))
}

fn line(condition: Condition, required: bool, state: &State) -> String {
    match state {
        Ok(word) => format!("{}: {word}\n", condition.name()),
        Err(reason) if required => format!("{}: failed: {reason}\n", condition.name()),
        Err(reason) => format!("{}: failed (not required): {reason}\n", condition.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_is_asked_for_by_name() {
        for query in ["verbose", "verbose=1", "a=b&verbose", "verbose="] {
            assert!(is_verbose(query), "{query}");
        }
        for query in ["", "verbos", "a=verbose", "verbose1"] {
            assert!(!is_verbose(query), "{query}");
        }
    }

    #[test]
    fn a_line_tells_whether_a_failure_counts() {
        let failed = Err("x".to_owned());
        assert_eq!(line(Condition::Accepting, true, &Ok("ok")), "accepting: ok\n");
        assert_eq!(line(Condition::Accepting, true, &failed), "accepting: failed: x\n");
        assert_eq!(line(Condition::Store, false, &failed), "store: failed (not required): x\n");
    }
}
