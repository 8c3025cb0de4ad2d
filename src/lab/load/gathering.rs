//! Captures: extracting values from one response.

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::event::{EventData, TooLong};
use super::failure::{Failure, Lack};
use super::jar;
use super::values::Values;
use crate::config::capture::{BodyPattern, Capture, Source};
use crate::secret::Secret;

/// Maximum length of a captured value.
const MAX_VALUE: usize = 8 << 10;
/// Maximum size of a body, or of an event's data, that is searched.
const MAX_TEXT: usize = 1 << 20;

/// The values captured so far from one response. Buffers at most 1 MiB, for a stream 2 MiB: a line and an
/// event.
#[derive(Debug)]
pub(super) struct Gathering<'a> {
    captures: &'a [Capture],
    found: Vec<Found>,
    body: Body,
}

type Found = Result<Secret<String>, Lack>;

/// The buffered part of the body.
#[derive(Debug)]
enum Body {
    /// All captures are complete, or none is in the body.
    Unread,
    Whole(Vec<u8>),
    TooLong,
    Events(EventData),
}

impl<'a> Gathering<'a> {
    /// Starts with the captures from headers.
    pub(super) fn new(captures: &'a [Capture], headers: &HeaderMap) -> Self {
        let found = captures.iter().map(|capture| in_headers(&capture.from, headers)).collect();
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let body = if !captures.iter().any(is_in_body) {
            Body::Unread
        } else if kind.eq_ignore_ascii_case("text/event-stream") {
            Body::Events(EventData::new(MAX_TEXT))
        } else {
            Body::Whole(Vec::new())
        };
        Gathering { captures, found, body }
    }

    /// Processes a piece of the body.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let Gathering { captures, found, body } = self;
        match body {
            Body::Unread | Body::TooLong => {}
            Body::Whole(text) if text.len() + piece.len() > MAX_TEXT => *body = Body::TooLong,
            Body::Whole(text) => text.extend_from_slice(piece),
            Body::Events(events) => {
                events.push(piece, |data| match data {
                    Ok(data) => search(captures, found, data),
                    Err(TooLong) => lack(captures, found, Lack::TextTooLong),
                });
                if found.iter().all(Result::is_ok) {
                    *body = Body::Unread;
                }
            }
        }
    }

    /// Whether all captures are complete.
    pub(super) fn is_complete(&self) -> bool {
        self.found.iter().all(Result::is_ok)
    }

    /// Processes the end of the body.
    pub(super) fn end(&mut self) {
        let Gathering { captures, found, body } = self;
        match std::mem::replace(body, Body::Unread) {
            Body::Whole(text) => search(captures, found, &text),
            Body::TooLong => lack(captures, found, Lack::TextTooLong),
            Body::Unread | Body::Events(_) => {}
        }
    }

    /// Stores all captured values in `values`, or none if one is missing.
    pub(super) fn give(&self, values: &mut Values) -> Result<(), Failure> {
        let all = self.captures.iter().zip(&self.found);
        for (capture, found) in all.clone() {
            if let Err(lack) = found {
                return Err(Failure::NoValue(capture.name.as_str().into(), *lack));
            }
        }
        for (capture, found) in all {
            if let Ok(value) = found {
                values.set(&capture.name, value);
            }
        }
        Ok(())
    }
}

/// Searches `text` for the missing values.
fn search(captures: &[Capture], found: &mut [Found], text: &[u8]) {
    let missing = || captures.iter().zip(found.iter()).filter(|(_, found)| found.is_err());
    let needs_json = missing().any(|(capture, _)| matches!(capture.from, Source::Pointer(_)));
    let document = needs_json.then(|| serde_json::from_slice(text).ok()).flatten();
    for (capture, found) in captures.iter().zip(found) {
        if found.is_err() && is_in_body(capture) {
            match in_text(&capture.from, text, document.as_ref()) {
                // An earlier, more specific reason is kept.
                Err(Lack::Absent) => {}
                other => *found = other,
            }
        }
    }
}

fn lack(captures: &[Capture], found: &mut [Found], lack: Lack) {
    for (capture, found) in captures.iter().zip(found) {
        if found.is_err() && is_in_body(capture) {
            *found = Err(lack);
        }
    }
}

fn is_in_body(capture: &Capture) -> bool {
    matches!(capture.from, Source::Pointer(_) | Source::Pattern(_))
}

fn in_headers(from: &Source, headers: &HeaderMap) -> Found {
    match from {
        Source::Header(name) => {
            let value = headers.get(name).and_then(|value| str::from_utf8(value.as_bytes()).ok());
            value.map_or(Err(Lack::Absent), kept)
        }
        Source::Cookie(name) => jar::set(headers, name).map_or(Err(Lack::Absent), |value| kept(&value)),
        Source::Pointer(_) | Source::Pattern(_) => Err(Lack::Absent),
    }
}

/// Extracts a value from a body or from an event; `document` is that text parsed as JSON.
fn in_text(from: &Source, text: &[u8], document: Option<&Value>) -> Found {
    match from {
        Source::Pointer(pointer) => match document.and_then(|document| document.pointer(pointer)) {
            Some(Value::String(text)) => kept(text),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => kept(&value.to_string()),
            _ => Err(Lack::Absent),
        },
        Source::Pattern(BodyPattern(pattern)) => {
            let groups = pattern.captures(text);
            let value = groups.and_then(|groups| groups.get(1).or_else(|| groups.get(0)));
            let value = value.and_then(|value| str::from_utf8(value.as_bytes()).ok());
            value.map_or(Err(Lack::Absent), kept)
        }
        Source::Header(_) | Source::Cookie(_) => Err(Lack::Absent),
    }
}

fn kept(value: &str) -> Found {
    if value.len() > MAX_VALUE { Err(Lack::TooLong) } else { Ok(Secret::new(value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::config::parse_scenario;

    fn wanted(captures: &str) -> Vec<Capture> {
        let text = format!("name = 'x'\n[[action]]\nname = 'a'\npath = '/'\ncapture = {captures}");
        let scenario = parse_scenario(&text, "x").unwrap_or_else(|problems| panic!("{problems}"));
        scenario.actions[0].steps[0].ask.captures.clone()
    }

    fn headers(kind: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))])
    }

    /// The value of `id`.
    fn found(capture: &str, kind: &'static str, pieces: &[&[u8]]) -> Result<String, String> {
        let wanted = wanted(&format!("{{ id = {capture} }}"));
        let mut gathering = Gathering::new(&wanted, &headers(kind));
        pieces.iter().for_each(|piece| gathering.push(piece));
        gathering.end();
        let mut values = Values::default();
        gathering.give(&mut values).map_err(|failure| failure.to_string())?;
        Ok(values.get("id").unwrap().to_owned())
    }

    #[test]
    fn a_pointer_finds_texts_numbers_and_booleans() {
        let json = br#"{"a":[{"b/c":"x"},7,true,1.5,null,{}]}"#;
        for (pointer, value) in
            [("/a/0/b~1c", Some("x")), ("/a/1", Some("7")), ("/a/2", Some("true")), ("/a/3", Some("1.5"))]
                .into_iter()
                .chain([("/a/4", None), ("/a/5", None), ("/a/9", None), ("/b", None)])
        {
            let found = found(&format!("'{pointer}'"), "text/html", &[json]);
            assert_eq!(found.ok().as_deref(), value, "{pointer}");
        }
    }

    #[test]
    fn the_first_event_that_has_the_value_gives_it() {
        let stream =
            b"event: ping\n\ndata: x\n\ndata: {\"a\":1}\n\ndata: {\"id\":\"1\"}\n\ndata: {\"id\":\"2\"}\n\n";
        assert_eq!(found("'/id'", "text/event-stream; charset=utf-8", &[stream]).as_deref(), Ok("1"));
        assert_eq!(found("'regex:\"id\":(.+)}'", "Text/Event-Stream", &[stream]).as_deref(), Ok("\"1\""));
        assert!(found("'/id'", "application/json", &[stream]).is_err());
    }

    #[test]
    fn a_long_event_is_told_unless_a_later_one_has_the_value() {
        let long = [b"data: ", "x".repeat(MAX_TEXT + 1).as_bytes(), b"\n\n"].concat();
        let told = "the answer that id is looked for in is longer than 1 MiB";
        assert_eq!(found("'/id'", "text/event-stream", &[&long, b"data: 1\n\n"]).unwrap_err(), told);
        assert_eq!(
            found("'/id'", "text/event-stream", &[&long, b"data: {\"id\":3}\n\n"]).as_deref(),
            Ok("3")
        );
    }

    #[test]
    fn nothing_is_kept_when_one_of_two_is_missing() {
        let wanted = wanted("{ a = '/a', b = '/b' }");
        let mut gathering = Gathering::new(&wanted, &headers("application/json"));
        gathering.push(b"{\"a\":\"1\"}");
        gathering.end();
        let mut values = Values::default();
        assert!(!gathering.is_complete() && gathering.give(&mut values).is_err());
        assert_eq!(values.get("a"), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_reading_panic(body in "[\\PC\n\r]{0,60}", cut in 0_usize..60, stream: bool) {
            let kind = if stream { "text/event-stream" } else { "application/json" };
            let cut = body.as_bytes().split_at(cut.min(body.len()));
            let _ = (found("'/a'", kind, &[cut.0, cut.1]), found("'regex:(a)|b'", kind, &[cut.0, cut.1]));
        }

        #[test]
        fn a_text_comes_out_as_it_went_in(text in "\\PC{0,30}", cut in 0_usize..60) {
            let body = serde_json::json!({ "a": [text] }).to_string();
            let (one, two) = body.as_bytes().split_at(cut.min(body.len()));
            prop_assert_eq!(found("'/a/0'", "application/json", &[one, two]), Ok(text));
        }
    }
}
