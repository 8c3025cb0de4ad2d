//! `[affinity]`.

use std::time::Duration;

use super::cookie::attributes;
use super::http_text::cookie_name;
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::model::Affinity;
use crate::config::reference::resolve;
use crate::config::section::Section;
use crate::config::value::{text, whole_seconds};
use crate::secret::Secret;

/// Minimum key material, in bytes.
const SECRET_BYTES: usize = 32;

pub(super) fn affinity(s: &mut Section<'_>, session_cookie: &str) -> Affinity {
    let cookie = s.value("cookie", cookie_name, "vestibule-affinity".to_owned());
    let affinity = Affinity {
        attributes: attributes(s, &cookie),
        cookie,
        max_age: s.value("max_age", whole_seconds, Duration::from_secs(12 * 3600)),
        secret: s.optional("secret", secret),
    };
    if affinity.cookie == session_cookie {
        let what = format!("{session_cookie:?} is the session's cookie as well");
        let why = "each would overwrite the other, and clients would lose both";
        s.fault(s.spot("cookie"), Fault::new(what, why, "give one of them another name"));
    }
    affinity
}

fn secret(node: &Node) -> Result<Secret<Vec<u8>>, Fault> {
    let read = || {
        let bytes = resolve(text(node)?).unwrap_or_else(|| Err(in_the_open()))?;
        match bytes.len() {
            SECRET_BYTES.. => Ok(Secret::new(bytes)),
            length => Err(too_short(length)),
        }
    };
    read().map_err(|fault| Fault { hidden: true, ..fault })
}

fn in_the_open() -> Fault {
    Fault::new(
        "the secret itself stands in the file",
        "whoever may read this file could forge affinity cookies",
        "write \"env:NAME\" or \"file:/path\", and replace this secret: it is no secret any more",
    )
}

fn too_short(length: usize) -> Fault {
    Fault::new(
        format!("the secret has {length} bytes, not {SECRET_BYTES} or more"),
        "a short secret can be found by trying, and affinity cookies forged with it",
        "make one with `openssl rand -hex 32`",
    )
}
