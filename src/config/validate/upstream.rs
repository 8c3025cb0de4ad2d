//! `[[upstream]]` and its instances.

use std::net::SocketAddr;

use super::balance::balance;
use super::discovery;
use super::health::{health, outlier};
use super::listen::socket_address;
use super::retry::{hedge, retry};
use super::stickiness::{rebalance, stick};
use crate::config::discovery::DiscoverySource;
use crate::config::fault::{Fault, Spot};
use crate::config::file::{Node, Value};
use crate::config::health::Outlier;
use crate::config::mode::{Mode, Modes};
use crate::config::model::Timeouts;
use crate::config::section::Section;
use crate::config::stickiness::{OnLost, Stick};
use crate::config::upstream::{
    Balance, Connections, Hash, HashKey, Instance, InstanceState, Queue, Upstream,
};
use crate::config::value::{boolean, choice, duration, duration_or_off, integer, text};

const ON_LOST: &[(&str, OnLost)] = &[("rebalance", OnLost::Rebalance), ("fail", OnLost::Fail)];

/// Maximum number of slots.
const MAX_SLOTS: usize = 1_000_000;

/// All upstreams. One without a valid name is reported and keeps its index with an empty name.
pub(super) fn upstreams(s: &mut Section<'_>, timeouts: &Timeouts, mode: Modes) -> Vec<Upstream> {
    let why = "without one there is nowhere to send a request";
    let upstreams = s.tables("upstream", why, |s| (s.spot("name"), upstream(s, timeouts, mode)));
    let mut seen: Vec<&(Spot, Upstream)> = Vec::new();
    for one in upstreams.iter().filter(|(_, upstream)| !upstream.name.is_empty()) {
        match seen.iter().find(|other| other.1.name == one.1.name) {
            Some((other, _)) => s.fault(one.0.clone(), taken_name(&one.1.name, &other.key)),
            None => seen.push(one),
        }
    }
    upstreams.into_iter().map(|(_, upstream)| upstream).collect()
}

fn upstream(s: &mut Section<'_>, timeouts: &Timeouts, mode: Modes) -> Upstream {
    let why = "routes, logs and metrics call it by its name";
    let max_requests = s.value("max_requests", slots, None);
    let discovery =
        s.optional_table("discovery", |s| discovery::discovery(s, max_requests)).unwrap_or_default();
    let balance = s.value("balance", balance, Balance::RoundRobin);
    if matches!(balance, Balance::Hash(Hash { key: HashKey::User, .. })) && mode != Mode::Shared.into() {
        s.fault(s.spot("balance"), no_users(mode));
    }
    let retry = s.table("retry", retry);
    let upstream = Upstream {
        name: s.required("name", why, "\"app\"", name).unwrap_or_default(),
        balance,
        stick: s.value("stick", stick, Stick::Cookie),
        on_lost: s.value("on_lost", choice(ON_LOST), OnLost::Rebalance),
        rebalance: s.optional_table("rebalance", rebalance),
        session_control: s.value("session_control", boolean, false),
        health: s.optional_table("health", health),
        outlier: s.optional_table("outlier", outlier).unwrap_or(Outlier::CAUTIOUS),
        queue: s.table("queue", queue),
        hedge: s.optional_table("hedge", |s| hedge(s, &retry)),
        retry,
        connections: s.table("connections", |s| connections(s, timeouts)),
        abandoned: s.value("abandoned", duration, Upstream::ABANDONED),
        slow_start: s.value("slow_start", duration_or_off, None),
        panic_below: s.value("panic_below", integer(0..=100), 0),
        instances: instances(s, max_requests, discovery.named),
        discovery: discovery.discovery,
    };
    // DNS records do not carry instance names.
    let is_dns = matches!(&upstream.discovery, Some(one) if matches!(one.source, DiscoverySource::Dns(_)));
    if matches!(upstream.stick, Stick::AppSuffix(_))
        && (is_dns || upstream.instances.iter().any(|one| one.name.is_none()))
    {
        s.fault(s.spot("stick"), nameless());
    }
    upstream
}

fn nameless() -> Fault {
    Fault::new(
        "an instance has no name, so no cookie can end with it",
        "its sessions would be lost with every request that goes elsewhere",
        "give each instance the `name` that the application appends to the cookie (jvmRoute)",
    )
}

/// A number of slots, `None` for `"unlimited"`.
fn slots(node: &Node) -> Result<Option<usize>, Fault> {
    match &node.value {
        Value::Text(word) if word == "unlimited" => Ok(None),
        _ => integer(1..=MAX_SLOTS)(node).map(Some),
    }
}

fn queue(s: &mut Section<'_>) -> Queue {
    Queue {
        length: s.value("length", integer(0..=MAX_SLOTS), Queue::DEFAULT.length),
        timeout: s.value("timeout", duration, Queue::DEFAULT.timeout),
    }
}

fn connections(s: &mut Section<'_>, timeouts: &Timeouts) -> Connections {
    Connections {
        idle_timeout: s.value("idle_timeout", duration, timeouts.upstream_keep_alive),
        max_lifetime: s.value("max_lifetime", duration_or_off, None),
        max_requests: s.value("max_requests", uses, None),
        warm: s.value("warm", integer(0..=1024), 0),
    }
}

/// A number of requests, `None` for `"unlimited"`.
fn uses(node: &Node) -> Result<Option<u32>, Fault> {
    match &node.value {
        Value::Text(word) if word == "unlimited" => Ok(None),
        _ => integer(1..=u32::MAX)(node).map(Some),
    }
}

fn no_users(mode: Modes) -> Fault {
    Fault::new(
        format!("users are not known in mode {:?}", mode.as_str()),
        "every request would be without what is hashed",
        "hash something else, such as \"session\", or set session.mode = \"shared\"",
    )
}

fn name(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a name for an upstream or an instance"),
        "it becomes part of log lines, metrics and URLs",
        "use 1 to 64 letters, digits, `-`, `_` and `.`",
    ))
}

fn taken_name(name: &str, key: &str) -> Fault {
    let why = "a route could not tell which of the two is meant";
    let help = "give each its own name; further instances go below the first as [[upstream.instance]]";
    Fault::new(format!("{name:?} is the name of `{key}` already"), why, help)
}

/// The instances of an upstream or of an instance file. `max_requests` is the default for instances without
/// their own limit.
pub(super) fn instances(
    s: &mut Section<'_>,
    max_requests: Option<usize>,
    may_be_none: bool,
) -> Vec<Instance> {
    let read = |s: &mut Section<'_>| (s.spot("address"), instance(s, max_requests));
    let written = match may_be_none {
        true => s.any_tables("instance", read),
        false => s.tables("instance", "an upstream without one cannot answer", read),
    };
    let mut instances: Vec<Instance> = Vec::new();
    for (spot, instance) in written {
        let Some(instance) = instance else { continue };
        if let Some(name) = &instance.name
            && instances.iter().any(|other| other.name.as_ref() == Some(name))
        {
            let what = format!("{name:?} is the name of another instance already");
            s.fault(
                spot.clone(),
                Fault::new(what, "a cookie could mean either of the two", "give each its own name"),
            );
        }
        if instances.iter().any(|other| other.address == instance.address) {
            let what = format!("{} is an instance of this upstream already", instance.address);
            let help = "leave one of them out; `weight` gives an instance a greater share";
            s.fault(spot, Fault::new(what, "it would be counted and checked twice", help));
        } else {
            instances.push(instance);
        }
    }
    instances
}

fn instance(s: &mut Section<'_>, max_requests: Option<usize>) -> Option<Instance> {
    let states =
        &[("ready", InstanceState::Ready), ("drain", InstanceState::Drain), ("down", InstanceState::Down)];
    let weight = s.value("weight", integer(1..=1000), 1);
    let backup = s.value("backup", boolean, false);
    let state = s.value("state", choice(states), InstanceState::Ready);
    let max_requests = s.value("max_requests", slots, max_requests);
    let why = "it is where requests are sent";
    let address = s.required("address", why, "\"127.0.0.1:5001\"", instance_address)?;
    let name = s.optional("name", name);
    Some(Instance { address, name, weight, backup, state, max_requests })
}

pub(super) fn instance_address(node: &Node) -> Result<SocketAddr, Fault> {
    let address = socket_address(node)?;
    if address.port() == 0 {
        let why = "nothing can be reached there";
        return Err(Fault::new("the port is 0", why, "write the port the application listens on"));
    }
    Ok(address)
}
