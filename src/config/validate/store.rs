//! `[session.store]`.

use std::path::PathBuf;
use std::time::Duration;

use super::store_url;
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::model::{OnOutage, Store, StoreFormat};
use crate::config::section::Section;
use crate::config::value::{choice, duration, integer, text};

/// Most connections of one worker.
const MAX_CONNECTIONS: usize = 64;

pub(super) fn store(s: &mut Section<'_>) -> Store {
    let format = choice(&[("hash", StoreFormat::Hash), ("json", StoreFormat::Json)]);
    let url = s.value("url", store_url::store_url, store_url::StoreUrl::MEMORY);
    let default_key = ("session:".to_owned(), String::new());
    let (key_prefix, key_suffix) = s.value("key", key, default_key);
    let store = Store {
        kind: url.kind,
        key_prefix,
        key_suffix,
        format: s.value("format", format, StoreFormat::Hash),
        on_outage: s.value("on_outage", on_outage, OnOutage::Deny),
        connect_timeout: s.value("connect_timeout", duration, Duration::from_secs(1)),
        response_timeout: s.value("response_timeout", duration, Duration::from_millis(250)),
        min_connections: s.value("min_connections", integer(1..=MAX_CONNECTIONS), 1),
        max_connections: s.value("max_connections", integer(1..=MAX_CONNECTIONS), 4),
        in_flight: s.value("in_flight", integer(1..=65_536), 256),
        wait_timeout: s.value("wait_timeout", duration, Duration::from_millis(100)),
        ca: s.optional("ca", |node| Ok(PathBuf::from(text(node)?))),
    };
    check_connections(s, &store);
    if store.ca.is_some() && !url.is_tls && s.are_sound(&["url"]) {
        s.fault(s.spot("ca"), needless_authority());
    }
    store
}

/// `"deny"`, `"anonymous"` or `{ stale = "5m" }`.
pub(super) fn on_outage(node: &Node) -> Result<OnOutage, Fault> {
    match &node.value {
        Value::Text(word) if word == "deny" => Ok(OnOutage::Deny),
        Value::Text(word) if word == "anonymous" => Ok(OnOutage::Anonymous),
        Value::Table(table) => match table.entries() {
            [only] if only.key == "stale" => duration(&only.node).map(OnOutage::Stale),
            _ => Err(unknown_on_outage()),
        },
        _ => Err(unknown_on_outage()),
    }
}

fn unknown_on_outage() -> Fault {
    Fault::new(
        "this is nothing that can be done while the store cannot answer",
        "users would be treated in a way nobody chose when the store fails",
        "write \"deny\", \"anonymous\" or { stale = \"5m\" }",
    )
}

fn check_connections(s: &mut Section<'_>, store: &Store) {
    let (min, max) = (store.min_connections, store.max_connections);
    if min > max && s.are_sound(&["min_connections", "max_connections"]) {
        let what = format!("min_connections is {min}, but max_connections is {max}");
        let help = format!("set max_connections to {min} or more, or min_connections to {max} or less");
        s.fault(s.spot("min_connections"), Fault::new(what, "both cannot be kept", help));
    }
}

fn needless_authority() -> Fault {
    Fault::new(
        "an authority is given, but the store is not reached by TLS",
        "the connection would be open to everyone on the way, against what this key suggests",
        "write the URL with `rediss://`, or leave `ca` out",
    )
}

/// The texts before and after `{id}`.
fn key(node: &Node) -> Result<(String, String), Fault> {
    let text = text(node)?;
    match text.split("{id}").collect::<Vec<_>>().as_slice() {
        [prefix, suffix] => Ok(((*prefix).to_owned(), (*suffix).to_owned())),
        parts => {
            let what = match parts.len() {
                1 => format!("{text:?} does not hold {{id}}"),
                _ => format!("{text:?} holds {{id}} more than once"),
            };
            let why = "each session needs its own key, and a key must name one session";
            Err(Fault::new(what, why, "write {id} once, where the session id belongs: \"session:{id}\""))
        }
    }
}
