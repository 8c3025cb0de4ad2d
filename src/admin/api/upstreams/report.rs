//! What is told of upstreams.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::balance::Balancer;
use crate::config::{self, InstanceState, Mode};
use crate::proxy::RuntimeConfig;
use crate::upstream::Instance;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    upstreams: Vec<UpstreamRow>,
}

#[derive(Debug, Serialize)]
struct UpstreamRow {
    name: String,
    balance: &'static str,
    /// Whether checks are not believed.
    panic: bool,
    /// Requests that wait for a free slot.
    waiting: usize,
    instances: Vec<InstanceRow>,
}

#[derive(Debug, Serialize)]
struct InstanceRow {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// What the operator wants.
    state: &'static str,
    state_seconds: u64,
    /// What checks and connects tell.
    condition: &'static str,
    /// Why, where there is something to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    weight: u32,
    /// Requests under way.
    requests: usize,
    /// Of these, the streams.
    streams: usize,
    /// Sessions that live here, in sticky mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    /// Of these, those that came back since the drain began.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions_since_drain: Option<u64>,
    #[serde(flatten)]
    deadline: Option<DeadlineRow>,
    /// Streams cut at deadlines so far.
    streams_closed: u64,
}

#[derive(Debug, Serialize)]
struct DeadlineRow {
    deadline_seconds: u64,
    then: &'static str,
}

/// What is the same for all instances of a report.
struct Moment {
    now: Instant,
    /// Ties used in this time are sessions, in sticky mode.
    session_idle: Option<Duration>,
}

impl Report {
    /// All upstreams and their instances, or those at the address `only`, and the upstreams that they are in.
    pub(super) fn of(plan: &RuntimeConfig, now: Instant, only: Option<SocketAddr>) -> Self {
        let is_sticky = plan.modes.include(Mode::Sticky);
        let moment = Moment { now, session_idle: is_sticky.then(|| plan.session_idle()) };
        let rows = plan.balancers().iter().map(|balancer| upstream_row(balancer, &moment, only));
        Report { upstreams: rows.filter(|row| only.is_none() || !row.instances.is_empty()).collect() }
    }
}

fn upstream_row(balancer: &Balancer, moment: &Moment, only: Option<SocketAddr>) -> UpstreamRow {
    let upstream = balancer.upstream();
    let is_wanted = |instance: &Instance| only.is_none_or(|address| instance.address == address);
    let members = upstream.members().filter(|(instance, _)| is_wanted(instance));
    UpstreamRow {
        name: upstream.name().to_owned(),
        balance: upstream.config.balance.as_str(),
        panic: balancer.is_panicking(),
        waiting: upstream.group().waiting(),
        instances: members.map(|(instance, config)| instance_row(instance, config, moment)).collect(),
    }
}

fn instance_row(instance: &Instance, config: &config::Instance, moment: &Moment) -> InstanceRow {
    let Moment { now, session_idle } = *moment;
    let (state, age) = (instance.state(), now.saturating_duration_since(instance.state_since()));
    let drained = session_idle.filter(|_| state == InstanceState::Drain).map(|idle| idle.min(age));
    let sessions = |time| instance.pinned().within(time, now);
    InstanceRow {
        address: instance.label.clone(),
        name: config.name.clone(),
        state: state.as_str(),
        state_seconds: age.as_secs(),
        condition: instance.condition(now).as_str(),
        reason: instance.reason(now),
        weight: instance.weight(),
        requests: instance.in_flight(),
        streams: instance.streams(now),
        sessions: session_idle.map(sessions),
        sessions_since_drain: drained.map(sessions),
        deadline: instance.deadline().map(|deadline| DeadlineRow {
            // Rounded up: zero is over.
            deadline_seconds: (deadline.at - now).as_millis().div_ceil(1000) as u64,
            then: deadline.then.as_str(),
        }),
        streams_closed: instance.closed_streams(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_an_instance_with_everything_to_say_is_written_like_this() {
        let row = InstanceRow {
            address: "127.0.0.1:5001".to_owned(),
            name: Some("one".to_owned()),
            state: "drain",
            state_seconds: 1,
            condition: "down",
            reason: "why".to_owned(),
            weight: 2,
            requests: 3,
            streams: 4,
            sessions: Some(5),
            sessions_since_drain: Some(6),
            deadline: Some(DeadlineRow { deadline_seconds: 7, then: "close" }),
            streams_closed: 8,
        };
        let expected = r#"{"address":"127.0.0.1:5001","name":"one","state":"drain","state_seconds":1,"#
            .to_owned()
            + r#""condition":"down","#
            + r#""reason":"why","weight":2,"requests":3,"streams":4,"sessions":5,"sessions_since_drain":6,"#
            + r#""deadline_seconds":7,"then":"close","streams_closed":8}"#;
        assert_eq!(serde_json::to_string(&row).unwrap(), expected);
    }
}
