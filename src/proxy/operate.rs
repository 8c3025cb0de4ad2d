//! What the operator wants of instances while the proxy runs.
//!
//! Instances keep it through changes of the configuration, unless that changes what it says of the instance.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::balance::Balancer;
use crate::config::InstanceState;
use crate::upstream::{Deadline, Instance, InstanceId, Then};

use super::plan::Plan;

/// One wish. What it does not name stays as it is; a state without a deadline has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// `None`: every upstream in which the instance is.
    pub upstream: Option<String>,
    pub address: SocketAddr,
    pub state: Option<InstanceState>,
    /// 0 to 1000.
    pub weight: Option<u32>,
    /// When the instance goes down whatever still runs; only with a state other than ready.
    pub deadline: Option<Deadline>,
}

/// Why an order was not carried out; holds those whom it could concern.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    #[error("there is no such upstream; there are: {}", .0.join(", "))]
    NoUpstream(Vec<String>),
    #[error("there is no such instance; there are: {}", .0.join(", "))]
    NoInstance(Vec<String>),
    #[error("the process is ending")]
    Over,
}

/// Carries out `order`, its deadline included if that is now. To say the same again changes nothing but the deadline.
/// Whoever puts plans to use calls this, and nobody else, so that no plan misses what was ordered.
pub fn carry_out(plan: &Plan, order: &Order) -> Result<(), OrderError> {
    for (balancer, instance) in find(plan, order)? {
        if let Some(state) = order.state {
            instance.set_state(state);
            instance.set_deadline(order.deadline);
        }
        if let Some(weight) = order.weight {
            instance.set_weight(weight);
        }
        balancer.refresh();
        log(instance, order);
    }
    expire(plan, Instant::now());
    Ok(())
}

/// When [`expire`] is to be called next.
pub fn next_deadline(plan: &Plan) -> Option<Instant> {
    let instances = plan.upstreams().flat_map(|upstream| upstream.instances());
    instances.filter_map(|instance| instance.deadline()).map(|deadline| deadline.at).min()
}

/// Takes down the instances whose deadline has passed at `now`; the same holds for who calls it.
pub fn expire(plan: &Plan, now: Instant) {
    for balancer in plan.balancers() {
        let deadline_of = |instance: &Instance| instance.deadline().filter(|deadline| deadline.at <= now);
        let instances = balancer.upstream().instances().iter();
        let passed: Vec<_> = instances.filter_map(|one| Some((one, deadline_of(one)?))).collect();
        passed.iter().for_each(|(instance, _)| instance.set_state(InstanceState::Down));
        if !passed.is_empty() {
            balancer.refresh();
        }
        for (instance, deadline) in passed {
            let left = instance.in_flight();
            let closed = match deadline.then {
                Then::Keep => 0,
                Then::Close => instance.close_streams(),
            };
            tracing::warn!(
                instance = instance.label,
                left,
                closed,
                "the deadline has passed: the instance is down"
            );
        }
    }
}

fn find<'a>(plan: &'a Plan, order: &Order) -> Result<Vec<(&'a Balancer, &'a Arc<Instance>)>, OrderError> {
    let asked = |balancer: &&Arc<Balancer>| {
        order.upstream.as_ref().is_none_or(|name| balancer.upstream().name() == name)
    };
    let balancers: Vec<_> = plan.balancers().iter().filter(asked).collect();
    if balancers.is_empty() {
        return Err(OrderError::NoUpstream(
            plan.upstreams().map(|upstream| upstream.name().to_owned()).collect(),
        ));
    }
    let id = InstanceId::of(order.address);
    let members = balancers.iter().filter_map(|balancer| Some((&***balancer, balancer.upstream().find(id)?)));
    let members: Vec<_> = members.collect();
    if members.is_empty() {
        let known = balancers.iter().flat_map(|balancer| balancer.upstream().instances());
        let mut known: Vec<_> = known.map(|instance| instance.label.clone()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(OrderError::NoInstance(known));
    }
    Ok(members)
}

fn log(instance: &Instance, order: &Order) {
    let state = order.state.map(InstanceState::as_str);
    let seconds = order.deadline.map(|deadline| (deadline.at - Instant::now()).as_secs());
    let then = order.deadline.map(|deadline| deadline.then.as_str());
    let weight = order.weight;
    tracing::info!(instance = instance.label, state, weight, seconds, then, "the operator wants");
}
