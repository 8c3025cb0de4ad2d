//! `stick` and `[upstream.rebalance]`: what binds a client to its instance, and when sessions are moved.

use std::time::Duration;

use super::balance::hash_key;
use super::http_text::cookie_name;
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::section::Section;
use crate::config::stickiness::{Rebalance, Stick};
use crate::config::upstream::HashKey;
use crate::config::value::{duration, integer, text};

/// `"cookie"`, `{ app_cookie = "NAME" }`, `{ app_suffix = "NAME" }` or `{ hash = "session" }`.
pub(super) fn stick(node: &Node) -> Result<Stick, Fault> {
    match &node.value {
        Value::Text(word) if word == "cookie" => Ok(Stick::Cookie),
        Value::Table(table) => match table.entries() {
            [only] if only.key == "app_cookie" => cookie_name(&only.node).map(Stick::AppCookie),
            [only] if only.key == "app_suffix" => cookie_name(&only.node).map(Stick::AppSuffix),
            [only] if only.key == "hash" => match hash_key(text(&only.node)?)? {
                HashKey::User => Err(no_users()),
                key => Ok(Stick::Hash(key)),
            },
            _ => Err(unknown()),
        },
        _ => Err(unknown()),
    }
}

fn unknown() -> Fault {
    Fault::new(
        "this is nothing that ties a client to an instance",
        "sessions would be lost with every request that goes elsewhere",
        "write \"cookie\", { app_cookie = \"JSESSIONID\" }, { app_suffix = \"JSESSIONID\" } or { hash = \"session\" }",
    )
}

fn no_users() -> Fault {
    Fault::new(
        "users are not known in sticky mode",
        "no request would have what is hashed",
        "hash something that requests bring along, such as \"session\" or \"client\"",
    )
}

pub(super) fn rebalance(s: &mut Section<'_>) -> Rebalance {
    Rebalance {
        per_second: s.value("per_second", integer(1..=1_000_000), 10),
        idle_over: s.value("idle_over", duration, Duration::from_secs(300)),
    }
}
