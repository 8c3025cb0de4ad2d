//! `[[route.canary.match]]`: requests that go to the canary regardless of its share.

use std::cell::Cell;

use http::header::HeaderName;
use regex::Regex;

use super::canary::Around;
use super::http_text::cookie_name;
use crate::config::canary::{CanaryMatch, Condition, Device, ValueTest};
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::mode::Mode;
use crate::config::section::Section;
use crate::config::value::{choice, text};

const NOBODY: &str = "no request would ever match, or every request would";

/// `None` has been reported.
pub(super) fn canary_match(s: &mut Section<'_>, around: Around<'_>) -> Option<CanaryMatch> {
    let devices = choice(&[
        ("mobile", Device::Mobile),
        ("tablet", Device::Tablet),
        ("desktop", Device::Desktop),
        ("bot", Device::Bot),
    ]);
    let header = s.optional_table("header", |s| {
        let name = s.required("name", "it is what is looked at", "\"X-Canary\"", header_name);
        Some(Condition::Header { value: value(s)?, name: name? })
    });
    let cookie = s.optional_table("cookie", |s| {
        let name = s.required("name", "it is what is looked at", "\"canary\"", cookie_name);
        Some(Condition::Cookie { value: value(s)?, name: name? })
    });
    let country = s.optional_table("country", |s| {
        let why = "it is where a proxy in front of us tells the country";
        let header = s.required("header", why, "\"CF-IPCountry\"", header_name);
        let codes = some(s, "values", "[\"DE\", \"FR\"]", country);
        Some(Condition::Country { header: header?, codes: codes? })
    });
    let device = s.optional("device", devices).map(Condition::Device);
    let users = users(s, around);
    let keys = ["header", "cookie", "country", "device", "users"];
    if !keys.iter().any(|key| s.has(key)) {
        let help = "give it a `header`, `cookie`, `users`, `country` or `device`, or leave the table out";
        s.fault(
            s.spot("header"),
            Fault::new("this match asks for nothing", "every request would match", help),
        );
    }
    let conditions = [header.flatten(), cookie.flatten(), country.flatten(), device, users];
    let conditions: Vec<_> = conditions.into_iter().flatten().collect();
    (!conditions.is_empty()).then_some(CanaryMatch(conditions))
}

fn users(s: &mut Section<'_>, around: Around<'_>) -> Option<Condition> {
    if !s.has("users") {
        s.list("users", name);
        return None;
    }
    let ids = some(s, "users", "[\"42\"]", name)?;
    if around.session.mode != Mode::Shared.into() {
        let help = "set session.mode = \"shared\", or match by `header` or `cookie`";
        let why = "only resolved sessions have users, so no request would match";
        s.fault(s.spot("users"), Fault::new("the mode is not \"shared\"", why, help));
    }
    Some(Condition::User(ids))
}

/// Exactly one of `value` and `pattern`.
fn value(s: &mut Section<'_>) -> Option<ValueTest> {
    let value = s.optional("value", |node| text(node).map(|text| ValueTest::Is(text.to_owned())));
    let pattern = s.optional("pattern", pattern);
    if s.has("value") == s.has("pattern") {
        let what = "it needs either a `value` or a `pattern`";
        let help = "write value = \"…\" for one text, or pattern = \"…\" for a regular expression";
        s.fault(s.spot("value"), Fault::new(what, NOBODY, help));
    }
    value.or(pattern)
}

/// A regular expression for the whole value.
fn pattern(node: &Node) -> Result<ValueTest, Fault> {
    let pattern = text(node)?;
    // Compiled alone first: `a)|(?:b` is invalid, but would compile between the anchors.
    let compiled = Regex::new(pattern).and_then(|_| Regex::new(&format!("^(?:{pattern})$")));
    compiled.map(|regex| ValueTest::Matches(regex.into())).map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let help = "write a regular expression for the whole value, such as \"beta-[0-9]+\"";
        Fault::new(format!("{pattern:?} is not a pattern: {reason}"), NOBODY, help)
    })
}

/// A list that must not be empty.
fn some<T>(
    s: &mut Section<'_>,
    key: &'static str,
    example: &str,
    item: impl Fn(&Node) -> Result<T, Fault>,
) -> Option<Vec<T>> {
    let is_written = Cell::new(false);
    let items = s.list(key, |node| {
        is_written.set(true);
        item(node)
    });
    if !is_written.get() && s.are_sound(&[key]) {
        let what = format!("`{key}` is missing or empty");
        let help = format!("write {key} = {example}");
        s.fault(s.spot(key), Fault::new(what, "no request would ever match", help));
    }
    (!items.is_empty()).then_some(items)
}

fn name(node: &Node) -> Result<String, Fault> {
    match text(node)? {
        "" => Err(Fault::new("the user is empty", "no request would ever match", "leave it out")),
        user => Ok(user.to_owned()),
    }
}

fn country(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    if text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    let help = "write two capital letters (ISO 3166-1), such as \"DE\"";
    Err(Fault::new(format!("{text:?} is not a country"), "no request would ever match", help))
}

fn header_name(node: &Node) -> Result<HeaderName, Fault> {
    let text = text(node)?;
    text.parse().map_err(|_| {
        let help = "use letters, digits and `-`, such as \"X-Canary\"";
        Fault::new(format!("{text:?} is not a header name"), "no request would ever match", help)
    })
}
