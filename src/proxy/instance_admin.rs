//! What the operator wants of instances while the proxy runs.
//!
//! Instances keep it through changes of the configuration, unless that changes what it says of the instance.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;

use crate::balance::Balancer;
use crate::config::InstanceState;
use crate::upstream::{Deadline, DeadlineAction, Instance, InstanceId};

use super::runtime_config::RuntimeConfig;

/// One wish. What it does not name stays as it is; a state without a deadline has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceUpdate {
    /// `None`: every upstream in which the instance is.
    pub upstream: Option<String>,
    /// Its address or its name.
    pub instance: String,
    pub state: Option<InstanceState>,
    /// 0 to 1000.
    pub weight: Option<u32>,
    /// When the instance goes down whatever still runs; only with a state other than ready.
    pub deadline: Option<Deadline>,
}

/// Why an order was not carried out; holds those whom it could concern.
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

/// Carries out `order`, its deadline included if that is now; the address of the instance. To say the same again changes
/// nothing but the deadline. Whoever puts plans to use calls this, and nobody else, so that no plan misses what was ordered.
pub fn apply(plan: &RuntimeConfig, order: &InstanceUpdate) -> Result<SocketAddr, InstanceUpdateError> {
    let meant = find(plan, order.upstream.as_deref(), &order.instance)?;
    for (balancer, instance) in meant.members {
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
    Ok(meant.address)
}

/// When [`expire`] is to be called next.
pub fn next_deadline(plan: &RuntimeConfig) -> Option<Instant> {
    let instances = plan.upstreams().flat_map(|upstream| upstream.instances());
    instances.filter_map(|instance| instance.deadline()).map(|deadline| deadline.at).min()
}

/// Takes down the instances whose deadline has passed at `now`; the same holds for who calls it.
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

/// One server that an operator means.
pub(super) struct Meant<'a> {
    pub(super) address: SocketAddr,
    /// In each upstream; at least one.
    pub(super) members: Vec<(&'a Balancer, &'a Arc<Instance>)>,
}

/// The server that is meant by `name`, its address or its name in an upstream, wherever it is, or only in `upstream`.
/// A name that means one server here and another one there is refused: nobody knows which was meant.
pub(super) fn find<'a>(
    plan: &'a RuntimeConfig,
    upstream: Option<&str>,
    name: &str,
) -> Result<Meant<'a>, InstanceUpdateError> {
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
    Ok(Meant { address, members })
}

/// The address of the one server that is called so.
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

/// The addresses of all instances, each with what it is called.
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
