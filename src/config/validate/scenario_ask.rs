//! The requests of a scenario.

use http::header::HeaderName;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};

use super::scenario_capture::{Names, captures};
use crate::config::fault::{Fault, Spot};
use crate::config::file::{Node, Value};
use crate::config::scenario::{Action, Ask, AskBody, Step};
use crate::config::section::Section;
use crate::config::template::{NoTemplate, Piece, Template};
use crate::config::value::{boolean, integer, size, text};

/// The sample value of a placeholder for validation. It is also a valid JSON number.
const FILL: &str = "0";
/// Headers that frame a request or that the load generator sets itself.
const OURS: [&str; 7] =
    ["host", "cookie", "content-length", "transfer-encoding", "connection", "upgrade", "expect"];

pub(super) fn actions(s: &mut Section<'_>, has_session: bool, names: &mut Names) -> Vec<Action> {
    let mut read = |s: &mut Section<'_>| {
        let name = s.required("name", "figures are told apart by it", "\"look\"", name);
        let session = s.value("session", boolean, false);
        if session && !has_session {
            s.fault(s.spot("session"), no_session());
        }
        let weight = s.value("weight", integer(1..=1_000_000), 1);
        let first = step(s, names);
        let then = s.any_tables("then", |s| step(s, names));
        let steps: Option<Vec<Step>> = std::iter::once(first).chain(then).collect();
        Some(Action { name: name?, weight, session, steps: steps? })
    };
    let actions = s.tables("action", "there would be nothing to do", |s| (s.spot("name"), read(s)));
    let mut known: Vec<Action> = Vec::new();
    for (spot, action) in actions {
        let Some(action) = action else { continue };
        if known.iter().any(|other| other.name == action.name) {
            s.fault(
                spot,
                Fault::new(
                    format!("there are two actions {:?}", action.name),
                    "their figures could not be told apart",
                    "give one of them another name",
                ),
            );
        }
        known.push(action);
    }
    known
}

/// One step of an action. `None` has been reported.
fn step(s: &mut Section<'_>, names: &mut Names) -> Option<Step> {
    let stream = s.value("stream", boolean, false);
    let first = ask(s, names);
    let meanwhile = s.optional_table("meanwhile", |s| ask(s, names));
    if meanwhile.is_some() && !stream {
        let fault = Fault::new(
            "there is no stream meanwhile",
            "the request is sent while a stream runs",
            "add stream = true, or make it a request of its own with [[action.then]]",
        );
        s.fault(s.spot("meanwhile"), fault);
    }
    Some(Step { ask: first?, stream, meanwhile: meanwhile.flatten() })
}

/// The requests of a list of tables.
pub(super) fn asks(s: &mut Section<'_>, key: &'static str, needed: bool, names: &mut Names) -> Vec<Ask> {
    let ask = |s: &mut Section<'_>| ask(s, names);
    let asks = match needed {
        true => s.tables(key, "without it nobody could have a session", ask),
        false => s.any_tables(key, ask),
    };
    asks.into_iter().flatten().collect()
}

/// One request. `None` has been reported.
pub(super) fn ask(s: &mut Section<'_>, names: &mut Names) -> Option<Ask> {
    let path = s.required("path", "it is what is asked for", "\"/\"", path);
    if let Some(path) = &path {
        names.need(&s.spot("path"), path);
    }
    let body = body(s, names);
    let default = if matches!(body, AskBody::Empty) { Method::GET } else { Method::POST };
    let method = s.value("method", method, default);
    let headers = s.entries("headers", header).into_iter();
    let headers = headers.inspect(|(spot, (_, value))| names.need(spot, value)).map(|(_, header)| header);
    let headers = headers.collect();
    let expect = s.list("expect", status);
    let mut lost_on = s.list("lost_on", status);
    if !s.has("lost_on") {
        lost_on.push(StatusCode::UNAUTHORIZED);
    }
    let contains = s.optional("contains", |node| text(node).map(str::to_owned));
    let captures = captures(s, names);
    Some(Ask { method, path: path?, headers, body, expect, lost_on, contains, captures })
}

fn body(s: &mut Section<'_>, names: &mut Names) -> AskBody {
    let (json, text) = (s.optional("json", json), s.optional("text", template));
    for (key, template) in [("json", &json), ("text", &text)] {
        if let Some(template) = template {
            names.need(&s.spot(key), template);
        }
    }
    let form = form(s, names);
    let upload = s.optional("upload", size(0..=1 << 40)).map(|bytes| bytes as u64);
    let form = match (form, upload) {
        (form, Some(bytes)) => ("upload", Some(AskBody::Upload { bytes, fields: form.unwrap_or_else(user) })),
        (form, None) => ("form", form.map(AskBody::Form)),
    };
    let mut bodies = [("json", json.map(AskBody::Json)), ("text", text.map(AskBody::Text)), form]
        .into_iter()
        .filter_map(|(key, body)| Some((key, body?)));
    let first = bodies.next();
    if let Some((key, _)) = bodies.next() {
        s.fault(
            s.spot(key),
            Fault::new(
                "the request has a body already",
                "only one can be sent",
                "leave all but one of `json`, `text`, and `form` or `upload` out",
            ),
        );
    }
    first.map_or(AskBody::Empty, |(_, body)| body)
}

/// The fields of a form, in order. `None` when there is no form.
fn form(s: &mut Section<'_>, names: &mut Names) -> Option<Vec<(String, Template)>> {
    let fields: Vec<(Spot, Vec<(String, Template)>)> = s.entries("form", field);
    for (spot, values) in &fields {
        values.iter().for_each(|(_, value)| names.need(spot, value));
    }
    s.has("form").then(|| fields.into_iter().flat_map(|(_, values)| values).collect())
}

/// A field with one or several values.
fn field(name: &str, node: &Node) -> Result<Vec<(String, Template)>, Fault> {
    let one = |node: &Node| Ok((name.to_owned(), template(node)?));
    match &node.value {
        Value::List(values) => values.iter().map(one).collect(),
        _ => Ok(vec![one(node)?]),
    }
}

/// The default field of an upload without other fields.
fn user() -> Vec<(String, Template)> {
    vec![("user".to_owned(), Template { pieces: vec![Piece::User] })]
}

fn template(node: &Node) -> Result<Template, Fault> {
    Template::parse(text(node)?).map_err(|wrong| match wrong {
        NoTemplate::Unknown(word) => Fault::new(
            format!("nothing is known to fill in for {{{word}}}"),
            "it would be sent as it stands, which is hardly meant",
            "known: {user}, {random}, {cookie:NAME}, {base64:TEXT}, and what a request takes with `capture`; a brace itself is \
             followed by a space",
        ),
        NoTemplate::Open => Fault::new(
            "{base64: is not closed",
            "where it ends would have to be guessed",
            "close it with }, as in {base64:password{user}}",
        ),
    })
}

fn json(node: &Node) -> Result<Template, Fault> {
    let template = template(node)?;
    match serde_json::from_str::<serde_json::Value>(&template.sample(FILL)) {
        Ok(_) => Ok(template),
        Err(_) => Err(Fault::new(
            "this is not JSON",
            "the application would refuse it",
            "write JSON in single quotes, as in '{ \"user\": \"{user}\" }', or use `text`",
        )),
    }
}

fn path(node: &Node) -> Result<Template, Fault> {
    let template = template(node)?;
    let sample = template.sample(FILL);
    if sample.starts_with('/') && !sample.contains('#') && sample.parse::<PathAndQuery>().is_ok() {
        return Ok(template);
    }
    Err(Fault::new(
        format!("{sample:?} is not a path"),
        "it cannot be asked for",
        "begin it with `/` and percent-encode what is not allowed in a URL",
    ))
}

fn header(name: &str, node: &Node) -> Result<(HeaderName, Template), Fault> {
    let name = header_name(name)?;
    if OURS.contains(&name.as_str()) {
        return Err(Fault::new(
            format!("{name:?} is a header that the users write themselves"),
            "two of them would contradict each other",
            "leave it out",
        ));
    }
    let template = template(node)?;
    match HeaderValue::from_str(&template.sample(FILL)) {
        Ok(_) => Ok((name, template)),
        Err(_) => Err(Fault::new(
            "this is not a header value",
            "it cannot be sent as it stands",
            "leave out line breaks and control characters",
        )),
    }
}

/// A header name.
pub(super) fn any_header(node: &Node) -> Result<HeaderName, Fault> {
    header_name(text(node)?)
}

fn header_name(text: &str) -> Result<HeaderName, Fault> {
    text.parse().map_err(|_| {
        Fault::new(
            format!("{text:?} is not a header name"),
            "no message can carry it",
            "use letters, digits and `-`, such as \"X-Instance\"",
        )
    })
}

fn method(node: &Node) -> Result<Method, Fault> {
    let text = text(node)?;
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let method =
        Method::from_bytes(text.as_bytes()).ok().filter(|method| is_word && *method != Method::CONNECT);
    method.ok_or_else(|| {
        Fault::new(
            format!("{text:?} is not a method"),
            "the request could not be sent",
            "write such as \"GET\" or \"POST\"",
        )
    })
}

fn status(node: &Node) -> Result<StatusCode, Fault> {
    let status = integer(200..=599_u16)(node)?;
    StatusCode::from_u16(status)
        .map_err(|_| Fault::new("this is no status", "no answer has it", "write such as 200"))
}

fn name(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    if (1..=40).contains(&text.len()) && !text.contains(char::is_control) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("{text:?} is not a name"), "figures are shown beside it", "write 1 to 40 letters"))
}

fn no_session() -> Fault {
    Fault::new(
        "nobody has a session",
        "there is no table [session], so nobody logs in",
        "add [session] with [[session.login]], or leave `session` out",
    )
}
