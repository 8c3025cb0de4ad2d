//! `balance`: how an instance is chosen.

use super::header;
use super::http_text::is_cookie_name;
use crate::config::fault::Fault;
use crate::config::file::{Node, Table, Value};
use crate::config::nearest::nearest;
use crate::config::upstream::{Balance, Hash, HashKey};
use crate::config::value::{integer, text};

const WORDS: [&str; 4] = ["round_robin", "least_requests", "two_choices", "random"];

/// A word, or `{ hash = "session", bound = 125 }`.
pub(super) fn balance(node: &Node) -> Result<Balance, Fault> {
    match &node.value {
        Value::Table(table) => hash(table).map(Balance::Hash),
        _ => word(text(node)?),
    }
}

fn word(text: &str) -> Result<Balance, Fault> {
    match text {
        "round_robin" => Ok(Balance::RoundRobin),
        "least_requests" => Ok(Balance::LeastRequests),
        "two_choices" => Ok(Balance::TwoChoices),
        "random" => Ok(Balance::Random),
        _ => {
            let known = format!("{} or {{ hash = \"session\" }}", WORDS.join(", "));
            let help = match nearest(text, WORDS) {
                Some(near) => format!("did you mean {near:?}? Known: {known}"),
                None => format!("write one of: {known}"),
            };
            Err(Fault::new(
                format!("{text:?} is no way to balance"),
                "instances would be chosen by guess",
                help,
            ))
        }
    }
}

fn hash(table: &Table) -> Result<Hash, Fault> {
    let (mut key, mut bound) = (None, None);
    for entry in table.entries() {
        match entry.key.as_str() {
            "hash" => key = Some(hash_key(text(&entry.node)?)?),
            "bound" => bound = Some(integer(101..=1000)(&entry.node)?),
            other => return Err(unknown_part(other)),
        }
    }
    key.map(|key| Hash { key, bound }).ok_or_else(|| unknown_part("hash is missing"))
}

fn unknown_part(what: &str) -> Fault {
    Fault::new(
        format!("this table is no way to balance ({what})"),
        "instances would be chosen by guess",
        "write { hash = \"session\" }, or { hash = \"session\", bound = 125 } with a bound in percent",
    )
}

pub(super) fn hash_key(text: &str) -> Result<HashKey, Fault> {
    match text.split_once(':') {
        None if text == "session" => Ok(HashKey::Session),
        None if text == "user" => Ok(HashKey::User),
        None if text == "client" => Ok(HashKey::Client),
        Some(("header", name)) => header::free_name(name).map(HashKey::Header),
        Some(("cookie", name)) if is_cookie_name(name) => Ok(HashKey::Cookie(name.to_owned())),
        _ => Err(Fault::new(
            format!("{text:?} cannot be hashed"),
            "all requests would go to one instance",
            "write \"session\", \"user\", \"client\", \"header:X-Tenant\" or \"cookie:NAME\"",
        )),
    }
}
