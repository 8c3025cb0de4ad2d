//! `[session]` and its cookie.

use std::time::Duration;

use http::header::HeaderName;
use regex::{Regex, RegexBuilder};

use super::cookie::attributes;
use super::header::{are_confused, free_name};
use super::http_text::{cookie_name, location};
use super::identity::checked_pointer;
use super::mode::modes;
use super::session_cache::session_cache;
use super::store::store;
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::model::{
    ClearCookie, CorsPreflights, Identity, OnAbsent, OnUnreadable, Renewal, Session, SessionCookie,
};
use crate::config::section::Section;
use crate::config::value::{boolean, choice, duration, duration_or_off, text, whole_seconds};

const ID_PATTERN: &str = "[A-Za-z0-9_-]{1,128}";
const USER: &str = "/user_id";

/// `None` has been reported.
pub(super) fn session(s: &mut Section<'_>, identity: &Identity) -> Option<Session> {
    let half_an_hour = Duration::from_secs(30 * 60);
    let half_a_day = Duration::from_secs(12 * 3600);
    let id_pattern = match s.optional("id_pattern", |node| anchored(text(node)?)) {
        Some(pattern) => Some(pattern),
        None => s.check(s.spot("id_pattern"), anchored(ID_PATTERN)),
    };
    let session = Session {
        mode: modes(s),
        on_absent: s.value("on_absent", on_absent, OnAbsent::Anonymous),
        on_unreadable: s.value(
            "on_unreadable",
            choice(&[("anonymous", OnUnreadable::Anonymous), ("deny", OnUnreadable::Deny)]),
            OnUnreadable::Anonymous,
        ),
        cors_preflights: s.value("cors_preflights", cors_preflights, CorsPreflights::Pass),
        idle_timeout: s.value("idle_timeout", duration_or_off, Some(half_an_hour)),
        absolute_timeout: s.value("absolute_timeout", duration, half_a_day),
        id_pattern: id_pattern?.into(),
        header: s.optional("header", |node| id_header(text(node)?, identity)),
        renewal: s.value(
            "renewal",
            choice(&[("async", Renewal::Async), ("sync", Renewal::Sync)]),
            Renewal::Async,
        ),
        user: s.value("user", user, USER.to_owned()),
        cookie: s.table("cookie", cookie),
        cache: s.table("cache", session_cache),
        store: s.table("store", store),
    };
    Some(session)
}

pub(super) fn cors_preflights(node: &Node) -> Result<CorsPreflights, Fault> {
    choice(&[("pass", CorsPreflights::Pass), ("deny", CorsPreflights::Deny)])(node)
}

/// `"anonymous"`, `"unauthorized"` or `{ redirect = "…" }`.
pub(super) fn on_absent(node: &Node) -> Result<OnAbsent, Fault> {
    match &node.value {
        Value::Text(word) if word == "anonymous" => Ok(OnAbsent::Anonymous),
        Value::Text(word) if word == "unauthorized" => Ok(OnAbsent::Unauthorized),
        Value::Table(table) => match table.entries() {
            [only] if only.key == "redirect" => Ok(OnAbsent::Redirect(location(text(&only.node)?)?)),
            _ => Err(unknown_on_absent()),
        },
        _ => Err(unknown_on_absent()),
    }
}

fn unknown_on_absent() -> Fault {
    Fault::new(
        "this is nothing that can be done without a session",
        "requests without a session would be treated in a way nobody chose",
        "write \"anonymous\", \"unauthorized\" or { redirect = \"/signin\" }",
    )
}

/// A header that clients may send. It must not be an identity header, because those are removed from
/// requests.
fn id_header(text: &str, identity: &Identity) -> Result<HeaderName, Fault> {
    let name = free_name(text)?;
    if identity.headers.iter().any(|other| other.name == name || are_confused(&other.name, &name)) {
        return Err(Fault::new(
            format!("{text:?} is an identity header as well"),
            "it is removed from every request before the session is looked up",
            "choose another name",
        ));
    }
    Ok(name)
}

/// An RFC 6901 pointer to the user.
fn user(node: &Node) -> Result<String, Fault> {
    checked_pointer(text(node)?).map_err(|fault| {
        let why = "no session of a user could be found";
        Fault::new(fault.what, why, format!("write it like {USER:?} (`~0` for `~`, `~1` for `/` in a name)"))
    })
}

/// Compiles a pattern that must match a whole id. Classes such as `\w` and `(?i)` are ASCII only.
fn anchored(pattern: &str) -> Result<Regex, Fault> {
    // Compiled alone first: `a)|(?:b` is invalid, but between the anchors it would compile and match parts of
    // an id.
    let alone = compile(pattern).map_err(|error| broken_pattern(pattern, &error))?;
    if alone.find("").is_some() {
        let why = "a cookie without a value would be looked up as a session";
        let what = format!("{pattern:?} matches an empty id");
        return Err(Fault::new(what, why, "ask for at least one character, such as \"[a-z0-9]+\""));
    }
    compile(&format!("^(?:{pattern})$")).map_err(|error| broken_pattern(pattern, &error))
}

/// Compiles without Unicode where possible. A pattern with `.` or `[^…]` needs Unicode mode, because it could
/// otherwise match invalid UTF-8.
fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let with = |unicode| RegexBuilder::new(pattern).unicode(unicode).build();
    with(false).or_else(|error| with(true).map_err(|_| error))
}

fn broken_pattern(pattern: &str, error: &regex::Error) -> Fault {
    let error = error.to_string();
    let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
    Fault::new(
        format!("{pattern:?} is not a pattern: {reason}"),
        "no session id could be told from garbage",
        format!("write a regular expression for the whole id, such as {ID_PATTERN:?}"),
    )
}

fn cookie(s: &mut Section<'_>) -> SessionCookie {
    let name = s.value("name", cookie_name, "session-id".to_owned());
    let clear =
        choice(&[("never", ClearCookie::Never), ("ended", ClearCookie::Ended), ("all", ClearCookie::All)]);
    SessionCookie {
        attributes: attributes(s, &name),
        name,
        max_age: s.value("max_age", whole_seconds, Duration::from_secs(3600)),
        clear: s.value("clear", clear, ClearCookie::Ended),
        hide: s.value("hide", boolean, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_ids_only() {
        let pattern = anchored("a|b+").unwrap();
        for (id, expected) in [("a", true), ("bb", true), ("ab", false), ("a\n", false), ("xa", false)] {
            assert_eq!(pattern.is_match(id), expected, "{id:?}");
        }
    }

    #[test]
    fn a_pattern_cannot_break_out_of_its_anchors() {
        assert!(anchored("a)|(?:b").unwrap_err().what.starts_with("\"a)|(?:b\" is not a pattern: "));
        assert!(!anchored("(?m)a").unwrap().is_match("a\nb"));
    }

    #[test]
    fn classes_mean_ascii_and_a_dot_is_allowed() {
        assert!(anchored(r"\w+").unwrap().is_match("aZ_9"));
        assert!(!anchored(r"\w+").unwrap().is_match("é"));
        assert!(anchored("(?i)[0-9a-f-]{36}").unwrap().is_match("0F8FAD5B-D9CB-469F-A165-70867728950E"));
        assert!(anchored(r"s:.{3}").unwrap().is_match("s:abc"));
    }

    #[test]
    fn a_pattern_for_nothing_is_refused() {
        assert_eq!(anchored("[a-z]*").unwrap_err().what, "\"[a-z]*\" matches an empty id");
    }

    #[test]
    fn the_user_is_found_by_a_pointer() {
        let node = |text: &str| Node { span: 0..0, value: Value::Text(text.to_owned()) };
        assert_eq!(user(&node("/profile/id")).unwrap(), "/profile/id");
        let fault = user(&node("user_id")).unwrap_err();
        assert_eq!(fault.what, "\"user_id\" is not a JSON Pointer to a member of the session");
        assert_eq!(fault.why, "no session of a user could be found");
    }
}
