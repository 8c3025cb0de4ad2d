//! Captures: values extracted from responses, and the placeholders that use them.

use std::cell::RefCell;

use http::HeaderName;
use regex::bytes::RegexBuilder;

use crate::config::capture::{BodyPattern, Capture, Source};
use crate::config::fault::{Fault, Spot};
use crate::config::file::Node;
use crate::config::nearest::nearest;
use crate::config::section::Section;
use crate::config::template::Template;
use crate::config::value::text;

/// Per scenario, so that the memory per user is bounded.
const MOST_NAMES: usize = 32;
const MOST_LETTERS: usize = 40;
/// Built-in placeholders.
const TAKEN: [&str; 2] = ["user", "random"];
const HELP: &str =
    "write a JSON pointer such as \"/data/id\", \"header:NAME\", \"cookie:NAME\" or \"regex:PATTERN\"";

/// The names that a scenario's requests capture, and those that they use.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: Vec<String>,
    needed: Vec<(Spot, String)>,
}

impl Names {
    /// Records the names that a template uses.
    pub(super) fn need(&mut self, spot: &Spot, template: &Template) {
        self.needed.extend(template.names().map(|name| (spot.clone(), name.to_owned())));
    }

    /// Reports every used name that no request captures. Call it after all requests are read.
    pub(super) fn check(self, s: &mut Section<'_>) {
        for (spot, name) in self.needed {
            if !self.given.contains(&name) {
                s.fault(spot, unknown(&name, &self.given));
            }
        }
        if self.given.len() > MOST_NAMES {
            let fault = Fault::new(
                format!("{} names are captured", self.given.len()),
                "every user keeps a value for each of them",
                format!("capture at most {MOST_NAMES} names, or take the same name again"),
            );
            s.fault(s.own_spot(), fault);
        }
    }
}

/// The table `capture` of a request.
pub(super) fn captures(s: &mut Section<'_>, names: &mut Names) -> Vec<Capture> {
    let written = RefCell::new(Vec::new());
    let captures = s.entries("capture", |name, node| {
        // A name with an invalid source still counts as captured, so that one mistake causes one problem.
        written.borrow_mut().extend(is_name(name).then(|| name.to_owned()));
        capture(name, node)
    });
    for name in written.into_inner() {
        if !names.given.contains(&name) {
            names.given.push(name);
        }
    }
    captures.into_iter().map(|(_, capture)| capture).collect()
}

fn capture(name: &str, node: &Node) -> Result<Capture, Fault> {
    if !is_name(name) {
        return Err(Fault::new(
            format!("{name:?} is not a name for a value"),
            "it is written as {name} where the value belongs; {user} and {random} are filled in anyway",
            format!("write a letter, then letters, digits, `_` and `-`, at most {MOST_LETTERS}"),
        ));
    }
    Ok(Capture { name: name.to_owned(), from: source(text(node)?)? })
}

fn is_name(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let is_word = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(letter);
    is_word && name.len() <= MOST_LETTERS && !TAKEN.contains(&name)
}

fn source(text: &str) -> Result<Source, Fault> {
    match text.split_once(':') {
        _ if text.starts_with('/') => pointer(text),
        Some(("header", name)) => name.parse::<HeaderName>().map(Source::Header).map_err(|_| {
            let help = "use letters, digits and `-`, such as \"header:X-CSRF-Token\"";
            Fault::new(format!("{name:?} is not a header name"), "no message can carry it", help)
        }),
        Some(("cookie", name)) if !name.is_empty() => Ok(Source::Cookie(name.to_owned())),
        Some(("regex", pattern)) => regex(pattern),
        _ => Err(Fault::new(
            format!("{text:?} is not a place in an answer"),
            "there would be no value to send later",
            HELP,
        )),
    }
}

/// RFC 6901 section 3: a `~` is followed by 0 or 1.
fn pointer(text: &str) -> Result<Source, Fault> {
    if text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])) {
        return Ok(Source::Pointer(text.to_owned()));
    }
    Err(Fault::new(
        format!("{text:?} is not a JSON pointer"),
        "a `~` stands only in ~0, which is `~`, and ~1, which is `/`",
        "write ~0 for a `~` in a member's name",
    ))
}

fn regex(pattern: &str) -> Result<Source, Fault> {
    // Bodies are bytes, not necessarily UTF-8.
    let built = RegexBuilder::new(pattern).unicode(false).build();
    built.map(|regex| Source::Pattern(BodyPattern(regex))).map_err(|error| {
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Fault::new(
            format!("{pattern:?} is not a pattern: {reason}"),
            "there would be no value to send later",
            "write a regular expression whose first group is the value, such as \"regex:id=([0-9]+)\"",
        )
    })
}

fn unknown(name: &str, given: &[String]) -> Fault {
    let known = TAKEN.into_iter().chain(given.iter().map(String::as_str));
    let near = nearest(name, known.clone())
        .map_or("known".to_owned(), |near| format!("did you mean {{{near}}}? Known"));
    let known: Vec<String> = known.map(|name| format!("{{{name}}}")).collect();
    Fault::new(
        format!("nothing is known to fill in for {{{name}}}"),
        "it would be sent as it stands, which is hardly meant",
        format!(
            "{near}: {}, {{cookie:NAME}}, {{base64:TEXT}}, and what a request takes with `capture`; a brace itself \
             is followed by a space",
            known.join(", ")
        ),
    )
}
