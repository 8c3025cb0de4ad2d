//! The report on upstreams.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use crate::balance::Balancer;
use crate::config::{self, InstanceState, Mode};
use crate::proxy::RuntimeConfig;
use crate::upstream::Instance;

/// The whole response.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    upstreams: Vec<UpstreamRow>,
}

#[derive(Debug, Serialize)]
struct UpstreamRow {
    name: String,
    balance: &'static str,
    /// Whether panic mode is on: too few instances are healthy, so their health is ignored.
    panic: bool,
    /// Requests in the queue for a free slot.
    waiting: usize,
    instances: Vec<InstanceRow>,
}

#[derive(Debug, Serialize)]
struct InstanceRow {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The administrative state, set by the operator.
    state: &'static str,
    state_seconds: u64,
    /// The health according to checks and connects.
    condition: &'static str,
    /// The reason for the condition, if there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    weight: u32,
    /// Requests in flight.
    requests: usize,
    /// Streams among the requests in flight.
    streams: usize,
    /// Sessions bound to this instance, in sticky mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u64>,
    /// Sessions that have been used since the drain began.
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

/// Values shared by all rows of a report.
struct Moment {
    now: Instant,
    /// A binding used within this time counts as a session, in sticky mode.
    session_idle: Option<Duration>,
}

impl Report {
    /// Reports all upstreams and instances, or only the instances at the address `only` and the upstreams
    /// that contain them.
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
            // Rounded up, so that zero means that the deadline has passed.
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
