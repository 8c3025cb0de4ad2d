//! `[[upstream]]` and its instances.

use std::net::SocketAddr;
use std::time::Duration;

use super::http_text::target;
use super::listen::socket_address;
use crate::config::fault::{Fault, Spot};
use crate::config::file::Node;
use crate::config::model::{Balance, HealthCheck, Instance, Upstream};
use crate::config::section::Section;
use crate::config::value::{boolean, choice, duration, integer, text};

/// All upstreams; one without a readable name is reported and keeps its place with an empty name.
pub(super) fn upstreams(s: &mut Section<'_>) -> Vec<Upstream> {
    let why = "without one there is nowhere to send a request";
    let upstreams = s.tables("upstream", why, |s| (s.spot("name"), upstream(s)));
    let mut seen: Vec<&(Spot, Upstream)> = Vec::new();
    for one in upstreams.iter().filter(|(_, upstream)| !upstream.name.is_empty()) {
        match seen.iter().find(|other| other.1.name == one.1.name) {
            Some((other, _)) => s.fault(one.0.clone(), taken_name(&one.1.name, &other.key)),
            None => seen.push(one),
        }
    }
    upstreams.into_iter().map(|(_, upstream)| upstream).collect()
}

fn upstream(s: &mut Section<'_>) -> Upstream {
    let balance = choice(&[("round_robin", Balance::RoundRobin)]);
    let why = "routes, logs and metrics call it by its name";
    Upstream {
        name: s.required("name", why, "\"app\"", name).unwrap_or_default(),
        balance: s.value("balance", balance, Balance::RoundRobin),
        session_control: s.value("session_control", boolean, false),
        health: s.optional_table("health", health),
        instances: instances(s),
    }
}

fn name(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(
        format!("{text:?} is not a name for an upstream"),
        "it becomes part of log lines, metrics and URLs",
        "use 1 to 64 letters, digits, `-`, `_` and `.`",
    ))
}

fn taken_name(name: &str, key: &str) -> Fault {
    let why = "a route could not tell which of the two is meant";
    let help = "give each its own name; further instances go below the first as [[upstream.instance]]";
    Fault::new(format!("{name:?} is the name of `{key}` already"), why, help)
}

fn health(s: &mut Section<'_>) -> HealthCheck {
    HealthCheck {
        path: s.value("path", target, "/health".to_owned()),
        interval: s.value("interval", duration, Duration::from_secs(1)),
        timeout: s.value("timeout", duration, Duration::from_secs(1)),
        rise: s.value("rise", integer(1..=1000), 2),
        fall: s.value("fall", integer(1..=1000), 3),
    }
}

fn instances(s: &mut Section<'_>) -> Vec<Instance> {
    let why = "an upstream without one cannot answer";
    let written = s.tables("instance", why, |s| (s.spot("address"), instance(s)));
    let mut instances: Vec<Instance> = Vec::new();
    for (spot, instance) in written {
        let Some(instance) = instance else { continue };
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

fn instance(s: &mut Section<'_>) -> Option<Instance> {
    let weight = s.value("weight", integer(1..=1000), 1);
    let why = "it is where requests are sent";
    let address = s.required("address", why, "\"127.0.0.1:5001\"", instance_address)?;
    Some(Instance { address, weight })
}

fn instance_address(node: &Node) -> Result<SocketAddr, Fault> {
    let address = socket_address(node)?;
    if address.port() == 0 {
        let why = "nothing can be reached there";
        return Err(Fault::new("the port is 0", why, "write the port the application listens on"));
    }
    Ok(address)
}
