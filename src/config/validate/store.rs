//! `[session.store]`.

use std::path::PathBuf;
use std::time::Duration;

use super::store_url;
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::model::{ClientCertificate, OnOutage, Store, StoreFormat, StoreKind};
use crate::config::redis_url::{Credentials, RedisKind};
use crate::config::reference::resolve;
use crate::config::section::Section;
use crate::config::value::{choice, duration, duration_or_off, integer, text};
use crate::secret::Secret;

/// Maximum connections per worker.
const MAX_CONNECTIONS: usize = 64;

pub(super) fn store(s: &mut Section<'_>) -> Store {
    let format = choice(&[("hash", StoreFormat::Hash), ("json", StoreFormat::Json)]);
    let default_key = ("session:".to_owned(), String::new());
    let (key_prefix, key_suffix) = s.value("key", key, default_key);
    let min_idle = s.value("min_idle", integer(1..=MAX_CONNECTIONS), 1);
    let store = Store {
        kind: s.value("url", store_url::store_url, StoreKind::Memory),
        key_prefix,
        key_suffix,
        format: s.value("format", format, StoreFormat::Hash),
        on_outage: s.value("on_outage", on_outage, OnOutage::Deny),
        connect_timeout: s.value("connect_timeout", duration, Duration::from_secs(1)),
        response_timeout: s.value("response_timeout", duration, Duration::from_millis(250)),
        min_idle,
        max_idle: s.value("max_idle", integer(1..=MAX_CONNECTIONS), min_idle),
        max_connections: s.value("max_connections", integer(1..=MAX_CONNECTIONS), 4),
        max_lifetime: s.value("max_lifetime", duration_or_off, Some(Duration::from_secs(1800))),
        in_flight: s.value("in_flight", integer(1..=65_536), 256),
        wait_timeout: s.value("wait_timeout", duration, Duration::from_millis(100)),
        ca: s.optional("ca", path),
        certificate: certificate(s),
        sentinel: Credentials {
            user: s.optional("sentinel_user", |node| text(node).map(str::to_owned)),
            password: s.optional("sentinel_password", password),
        },
    };
    let (min_idle, max_idle) = (("min_idle", store.min_idle), ("max_idle", store.max_idle));
    let most = ("max_connections", store.max_connections);
    check_order(s, min_idle, most);
    check_order(s, min_idle, max_idle);
    check_order(s, max_idle, most);
    check_use(s, &store.kind);
    check_key(s, &store);
    store
}

/// In a cluster, braces in a key select its hash slot. All keys of a session must be in the same slot.
fn check_key(s: &mut Section<'_>, store: &Store) {
    let is_cluster = matches!(&store.kind, StoreKind::Redis(url) if url.kind == RedisKind::Cluster);
    let has_braces = [&store.key_prefix, &store.key_suffix].iter().any(|part| part.contains(['{', '}']));
    if is_cluster && has_braces && s.are_sound(&["key"]) {
        let what = "the key holds braces besides {id}, and the store is a cluster";
        let why = "a cluster keeps what stands in braces together, but nothing else of the session";
        s.fault(s.spot("key"), Fault::new(what, why, "leave the other braces out: \"session:{id}\""));
    }
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

fn path(node: &Node) -> Result<PathBuf, Fault> {
    Ok(PathBuf::from(text(node)?))
}

/// Both files or neither.
fn certificate(s: &mut Section<'_>) -> Option<ClientCertificate> {
    let (certificate, private_key) = (s.optional("certificate", path), s.optional("private_key", path));
    if certificate.is_some() != private_key.is_some() && s.are_sound(&["certificate", "private_key"]) {
        let (here, missing) = match certificate {
            Some(_) => ("certificate", "private_key"),
            None => ("private_key", "certificate"),
        };
        let what = format!("`{here}` is given, but not `{missing}`");
        let help = format!("give `{missing}` as well, or leave `{here}` out");
        s.fault(s.spot(here), Fault::new(what, "one proves nothing without the other", help));
    }
    Some(ClientCertificate { certificate: certificate?, private_key: private_key? })
}

/// Reports `low` above `high`, once.
fn check_order(s: &mut Section<'_>, (low, min): (&'static str, usize), (high, max): (&'static str, usize)) {
    if min > max && s.are_sound(&["min_idle", "max_idle", "max_connections"]) {
        let what = format!("{low} is {min}, but {high} is {max}");
        let help = format!("set {high} to {min} or more, or {low} to {max} or less");
        s.fault(s.spot(low), Fault::new(what, "both cannot be kept", help));
    }
}

/// Reports keys that have no effect with this kind of store.
fn check_use(s: &mut Section<'_>, kind: &StoreKind) {
    if !s.are_sound(&["url"]) {
        return;
    }
    let url = match kind {
        StoreKind::Memory => None,
        StoreKind::Redis(url) => Some(url),
    };
    if !url.is_some_and(|url| url.tls) {
        for (key, what) in [
            ("ca", "an authority is given, but the store is not reached by TLS"),
            ("certificate", "a certificate is given, but the store is not reached by TLS"),
        ] {
            let why = "the connection would be open to everyone on the way, against what this key suggests";
            let help = format!("write the URL with `rediss`, or leave `{key}` out");
            refuse_key(s, key, Fault::new(what, why, help));
        }
    }
    if !url.is_some_and(|url| matches!(url.kind, RedisKind::Sentinel { .. })) {
        for key in ["sentinel_user", "sentinel_password"] {
            let what = format!("`{key}` is given, but the store is not found by sentinels");
            let why = "nothing would read it, so it would silently have no effect";
            refuse_key(s, key, Fault::new(what, why, "write who we are to Redis itself into the URL"));
        }
    }
}

fn refuse_key(s: &mut Section<'_>, key: &'static str, fault: Fault) {
    if s.has(key) && s.are_sound(&[key]) {
        s.fault(s.spot(key), fault);
    }
}

/// A reference to a password.
fn password(node: &Node) -> Result<Secret<String>, Fault> {
    let hidden = |fault| Fault { hidden: true, ..fault };
    let in_clear = || {
        let what = "the password itself stands in the file";
        Fault::new(what, "configuration files are read by many", "write \"env:NAME\" or \"file:/path\"")
    };
    let bytes = resolve(text(node)?).unwrap_or_else(|| Err(in_clear())).map_err(hidden)?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| {
        hidden(Fault::new("what it refers to is not text", "a password is text", "write the password there"))
    })
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
