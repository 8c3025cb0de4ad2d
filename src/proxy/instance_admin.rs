//! Runtime changes to instances by the operator.
//!
//! They survive configuration reloads unless the new configuration changes the same setting of the instance.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::balance::Balancer;
use crate::config::InstanceState;
use crate::upstream::{Deadline, DeadlineAction, Instance, InstanceId};

use super::runtime_config::RuntimeConfig;

/// One update. `None` fields are left unchanged. Setting a state without a deadline removes the deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceUpdate {
    /// `None`: all upstreams that contain the instance.
    pub upstream: Option<String>,
    /// Address or name.
    pub instance: String,
    pub state: Option<InstanceState>,
    /// 0 to 1000.
    pub weight: Option<u32>,
    /// Time at which the instance goes down even with requests in flight. Only valid with a state other than
    /// ready.
    pub deadline: Option<Deadline>,
}

/// Reason why an update failed. Holds the possible candidates.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstanceUpdateError {
    #[error("there is no such upstream; there are: {}", .0.join(", "))]
    NoUpstream(Vec<String>),
    #[error("there is no such instance; there are: {}", .0.join(", "))]
    NoInstance(Vec<String>),
    #[error("this name means several servers: {}; give the address, or name the upstream", .0.join(", "))]
    Several(Vec<String>),
    #[error("the process is ending")]
    Over,
}

/// Applies `order` and returns the address of the instance. A deadline that has already passed is executed at
/// once. Repeating an update changes nothing but the deadline. Only the task that installs new configurations
/// may call this, so that no new configuration misses an update.
pub fn apply(plan: &RuntimeConfig, order: &InstanceUpdate) -> Result<SocketAddr, InstanceUpdateError> {
    let addressed = find(plan, order.upstream.as_deref(), &order.instance)?;
    for (balancer, instance) in addressed.members {
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
    Ok(addressed.address)
}

/// When [`expire`] must be called next. `None` when no deadline is set.
pub fn next_deadline(plan: &RuntimeConfig) -> Option<Instant> {
    let instances = plan.upstreams().flat_map(|upstream| upstream.instances());
    instances.filter_map(|instance| instance.deadline()).map(|deadline| deadline.at).min()
}

/// Takes down the instances whose deadline has passed at `now`. The same caller restriction as for [`apply`]
/// holds.
pub fn expire(plan: &RuntimeConfig, now: Instant) {
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
                DeadlineAction::Keep => 0,
                DeadlineAction::Close => instance.close_streams(),
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

/// The server that an update addresses.
pub(super) struct AddressedInstance<'a> {
    pub(super) address: SocketAddr,
    /// Its membership in each upstream; not empty.
    pub(super) members: Vec<(&'a Balancer, &'a Arc<Instance>)>,
}

/// Finds the server by `name` (its address, or its name in an upstream), in all upstreams or only in
/// `upstream`. Fails with [`InstanceUpdateError::Several`] when the name is ambiguous.
pub(super) fn find<'a>(
    plan: &'a RuntimeConfig,
    upstream: Option<&str>,
    name: &str,
) -> Result<AddressedInstance<'a>, InstanceUpdateError> {
    let is_asked = |balancer: &&Arc<Balancer>| upstream.is_none_or(|name| balancer.upstream().name() == name);
    let asked: Vec<&Balancer> = plan.balancers().iter().filter(is_asked).map(|one| &**one).collect();
    if asked.is_empty() {
        let known = plan.upstreams().map(|upstream| upstream.name().to_owned());
        return Err(InstanceUpdateError::NoUpstream(known.collect()));
    }
    let address = match name.parse() {
        Ok(address) => address,
        Err(_) => address_of(&asked, name)?,
    };
    let id = InstanceId::of(address);
    let members = asked.iter().filter_map(|balancer| Some((*balancer, balancer.upstream().find(id)?)));
    let members: Vec<_> = members.collect();
    if members.is_empty() {
        return Err(InstanceUpdateError::NoInstance(known(&asked)));
    }
    Ok(AddressedInstance { address, members })
}

/// The address of the single server with this name.
fn address_of(asked: &[&Balancer], name: &str) -> Result<SocketAddr, InstanceUpdateError> {
    let called = asked.iter().filter_map(|one| Some((one.upstream(), one.upstream().find_named(name)?)));
    let called: Vec<_> = called.collect();
    let addresses: BTreeSet<_> = called.iter().map(|(_, instance)| instance.address).collect();
    match addresses.first() {
        None => Err(InstanceUpdateError::NoInstance(known(asked))),
        Some(address) if addresses.len() == 1 => Ok(*address),
        Some(_) => {
            let each = called.iter().map(|(upstream, one)| format!("{} ({})", one.label, upstream.name()));
            Err(InstanceUpdateError::Several(each.collect()))
        }
    }
}

/// The addresses of all instances, each with its names.
fn known(asked: &[&Balancer]) -> Vec<String> {
    let mut names = BTreeMap::<&str, BTreeSet<&str>>::new();
    for (instance, config) in asked.iter().flat_map(|balancer| balancer.upstream().members()) {
        names.entry(&instance.label).or_default().extend(config.name.as_deref());
    }
    let each = names.into_iter().map(|(address, names)| match Vec::from_iter(names).join(", ") {
        names if names.is_empty() => address.to_owned(),
        names => format!("{address} ({names})"),
    });
    each.collect()
}

fn log(instance: &Instance, order: &InstanceUpdate) {
    let state = order.state.map(InstanceState::as_str);
    let seconds = order.deadline.map(|deadline| (deadline.at - Instant::now()).as_secs());
    let then = order.deadline.map(|deadline| deadline.then.as_str());
    let weight = order.weight;
    tracing::info!(instance = instance.label, state, weight, seconds, then, "the operator wants");
}
