//! Warnings for operators about sessions that do not match the configuration. Each is logged once or at most
//! once a minute, and never contains an id or a value.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{self, StoreFormat, StoreKind};

use super::unreadable::{JSON_OBJECT, Unreadable};

/// Minimum time between two warnings of one kind.
const PERIOD: Duration = Duration::from_secs(60);
/// Number of look-ups without any session, counted from the start, after which a warning is logged.
const FIRST: u32 = 10;

/// What is stored under a key of the wrong type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inspection {
    /// The type as Redis names it; `None` if `TYPE` is not permitted.
    pub(super) kind: Option<String>,
    /// The format that a string seems to have.
    pub(super) looks_like: Option<&'static str>,
}

/// The warnings of a process.
pub(super) struct Warnings {
    /// The key of a session, with `<id>` in place of the id.
    key: String,
    database: u32,
    format: StoreFormat,
    /// Number of look-ups so far if none has found anything. [`FIRST`] or more: the warning is logged or not
    /// needed any more.
    empty: AtomicU32,
    /// Time of the last warning of each kind.
    latest: Mutex<HashMap<&'static str, Instant>>,
}

impl Warnings {
    pub(super) fn new(config: &config::Session) -> Self {
        let (database, empty) = match &config.store.kind {
            StoreKind::Redis(url) => (url.database, 0),
            // Other programs cannot write there, so the configuration cannot be wrong about it.
            StoreKind::Memory => (0, FIRST),
        };
        Warnings {
            key: format!("{}<id>{}", config.store.key_prefix, config.store.key_suffix),
            database,
            format: config.store.format,
            empty: AtomicU32::new(empty),
            latest: Mutex::default(),
        }
    }

    /// Records a look-up; `is_there` is whether the store has anything for the session. Logs a warning if
    /// the first [`FIRST`] look-ups have all found nothing.
    pub(super) fn looked_up(&self, is_there: bool) {
        if self.empty.load(Relaxed) >= FIRST {
            return;
        }
        if is_there {
            self.empty.store(FIRST, Relaxed);
        } else if self.empty.fetch_add(1, Relaxed) + 1 == FIRST {
            tracing::warn!(
                key = self.key,
                database = self.database,
                "none of the first {FIRST} sessions that were asked for is in the session store: are session.store.key, \
                 the database of session.store.url and session.cookie.name right? Until one is found, requests are \
                 handled as session.on_absent says, and their cookies stay"
            );
        }
    }

    /// Claims a warning of this kind. Returns true at most once per [`PERIOD`].
    pub(super) fn is_due(&self, kind: &'static str) -> bool {
        let now = Instant::now();
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = latest.get(kind).is_none_or(|at| now.duration_since(*at) >= PERIOD);
        if is_due {
            latest.insert(kind, now);
        }
        is_due
    }

    /// Warns of a session that cannot be read. `inspection` describes a key of the wrong type.
    pub(super) fn unreadable(&self, why: Unreadable, inspection: Option<&Inspection>) {
        let found = match (why, inspection) {
            (Unreadable::NoObject(looks_like), _) => format!("a string that looks like {looks_like}"),
            (_, Some(inspection)) => inspection.to_string(),
            (why, None) => why.to_string(),
        };
        let expected = match self.format {
            StoreFormat::Hash => "a hash (session.store.format = \"hash\")",
            StoreFormat::Json => "a string with one JSON object (session.store.format = \"json\")",
        };
        tracing::warn!(
            reason = why.kind(),
            key = self.key,
            found,
            expected,
            remedy = self.remedy(why, inspection),
            "a session cannot be read: its requests are handled as session.on_unreadable says, and its cookie stays"
        );
    }

    fn remedy(&self, why: Unreadable, inspection: Option<&Inspection>) -> &'static str {
        let is_json = inspection.is_some_and(|inspection| inspection.looks_like == Some(JSON_OBJECT));
        let is_hash = inspection
            .is_some_and(|inspection| inspection.kind.as_deref().is_some_and(|kind| kind == "hash"));
        match why {
            Unreadable::WrongType if is_json => "set session.store.format = \"json\"",
            Unreadable::WrongType if is_hash => "set session.store.format = \"hash\"",
            Unreadable::WrongType | Unreadable::NoObject(_) => {
                "let the application write its sessions as JSON or as a hash; if these are not its sessions, correct \
                 session.store.key"
            }
            Unreadable::TooLarge => "keep what is large out of the session",
            Unreadable::Expires => "write `expires` as seconds since 1970, or give that field another name",
            Unreadable::User => "session.user must lead to text or a number",
        }
    }

    /// Warns of a session id that does not match the pattern.
    pub(super) fn bad_id(&self, value: &[u8]) {
        tracing::warn!(
            id = shape(value),
            "what a request has as session id does not match session.id_pattern, so the request has no session: if ids \
             look like this, change the pattern, else session.cookie.name or session.header"
        );
    }
}

impl fmt::Debug for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Warnings")
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kind, self.looks_like) {
            (Some(kind), Some(looks_like)) => write!(f, "a {kind} that looks like {looks_like}"),
            (Some(kind), None) => write!(f, "a {kind}"),
            (None, _) => f.write_str("another type (TYPE may not be asked)"),
        }
    }
}

/// Describes a secret value without revealing it: its length, its character classes, and the format that it
/// seems to have.
fn shape(value: &[u8]) -> String {
    let mut text = format!("{} bytes", value.len());
    let mut of: Vec<String> = Vec::new();
    for (name, is_it) in [
        ("a-z", u8::is_ascii_lowercase as fn(&u8) -> bool),
        ("A-Z", u8::is_ascii_uppercase),
        ("0-9", u8::is_ascii_digit),
        ("bytes beyond ASCII", |byte: &u8| !byte.is_ascii()),
        ("control characters", u8::is_ascii_control),
    ] {
        if value.iter().any(is_it) {
            of.push(name.to_owned());
        }
    }
    let mut others: Vec<u8> =
        value.iter().copied().filter(|byte| byte.is_ascii_punctuation() || *byte == b' ').collect();
    others.sort_unstable();
    others.dedup();
    of.extend(others.into_iter().map(|byte| format!("'{}'", char::from(byte))));
    if !of.is_empty() {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " of {}", of.join(", "));
    }
    if let Some(looks_like) = looks_like(value) {
        let _ = write!(text, "; looks like {looks_like}");
    }
    text
}

/// Guesses which framework makes session ids of this form.
fn looks_like(value: &[u8]) -> Option<&'static str> {
    let starts = |start: &str| value.starts_with(start.as_bytes());
    let parts = |separator| value.split(move |byte| *byte == separator).count();
    match value {
        [] => None,
        [b'"', .., b'"'] => Some("a value in quotes"),
        _ if starts("s%3A") || starts("s:") => Some("a signed cookie of Express"),
        _ if starts("eyJpdiI6") => Some("an encrypted cookie of Laravel"),
        _ if starts("eyJ") && parts(b'.') == 3 => Some("a JSON Web Token"),
        _ if starts("eyJ") && parts(b'.') == 5 => Some("an encrypted JSON Web Token"),
        _ if starts(".eJ") || parts(b'.') == 3 => Some("a signed cookie of Flask (itsdangerous)"),
        _ if parts(b':') == 3 => Some("a signed cookie of Django"),
        _ if parts(b'.') == 2 => Some("an id with a signature or the name of an instance behind it"),
        _ if value.windows(2).any(|pair| pair == b"--") => Some("a cookie of Rails"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_tells_what_an_id_is_like_and_not_what_it_is() {
        for (value, expected) in [
            (
                &b"s%3Aabc.DEF"[..],
                "11 bytes of a-z, A-Z, 0-9, '%', '.'; looks like a signed cookie of Express",
            ),
            (
                b"eyJhbGciOiJIUzI1NiJ9.e30.x-_",
                "28 bytes of a-z, A-Z, 0-9, '-', '.', '_'; looks like a JSON Web Token",
            ),
            (b"a b", "3 bytes of a-z, ' '"),
            (b"\"abc\"", "5 bytes of a-z, '\"'; looks like a value in quotes"),
            (b"\xff\x01", "2 bytes of bytes beyond ASCII, control characters"),
            (b"", "0 bytes"),
        ] {
            assert_eq!(shape(value), expected);
        }
        let long = shape(&[b'x'; 5000]);
        assert_eq!(long, "5000 bytes of a-z");
    }
}
