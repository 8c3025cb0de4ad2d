//! `[route.headers]`: headers that a route sets in its requests.

use http::header::HeaderName;

use super::header::{are_confused, free_name, value};
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::model::Identity;
use crate::config::nearest::nearest;
use crate::config::route_header::{RequestPiece, RequestVariable, RouteHeader};
use crate::config::section::Section;
use crate::config::value::text;

/// The headers; an identity header of `identity` is a fault.
pub(super) fn route_headers(s: &mut Section<'_>, identity: &Identity) -> Vec<RouteHeader> {
    let mut headers: Vec<RouteHeader> = Vec::new();
    for (spot, header) in s.entries("headers", header) {
        match clash(&header.name, &headers, identity) {
            Some(fault) => s.fault(spot, fault),
            None => headers.push(header),
        }
    }
    headers
}

fn header(name: &str, node: &Node) -> Result<RouteHeader, Fault> {
    Ok(RouteHeader { name: free_name(name)?, value: pieces(text(node)?)? })
}

/// Parses a template. Braces around anything but a word are literal text.
fn pieces(text: &str) -> Result<Vec<RequestPiece>, Fault> {
    value(text)?;
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once('{') {
        plain.push_str(before);
        match inside.split_once('}').filter(|(word, _)| is_word(word)) {
            Some((word, behind)) => {
                if !plain.is_empty() {
                    pieces.push(RequestPiece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(RequestPiece::Variable(variable(word)?));
                rest = behind;
            }
            None => {
                plain.push('{');
                rest = inside;
            }
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(RequestPiece::Text(plain));
    }
    Ok(pieces)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':'))
}

fn variable(word: &str) -> Result<RequestVariable, Fault> {
    let known = RequestVariable::ALL.into_iter().find(|variable| variable.name() == word);
    known.ok_or_else(|| {
        let names = RequestVariable::ALL.map(RequestVariable::name);
        let all = names.map(|name| format!("{{{name}}}")).join(", ");
        let help = match nearest(word, names) {
            Some(near) => format!("did you mean `{{{near}}}`? Known: {all}"),
            None => format!("known: {all}"),
        };
        Fault::new(
            format!("{{{word}}} is nothing that is known of a request"),
            "it could not be filled in",
            help,
        )
    })
}

fn clash(name: &HeaderName, own: &[RouteHeader], identity: &Identity) -> Option<Fault> {
    if own.iter().any(|other| other.name == *name || are_confused(&other.name, name)) {
        let why = "which of the two the application reads would be left to chance";
        let what = format!("`{name}` stands here twice, if only in another spelling");
        return Some(Fault::new(what, why, "leave one of them out"));
    }
    let told = |other: &HeaderName| other == name || are_confused(other, name);
    identity.headers.iter().any(|header| told(&header.name)).then(|| {
        Fault::new(
            format!("`{name}` tells the application who the user is"),
            "a user could be taken for another",
            "choose another name, or take the header out of [identity]",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_text_and_variables() {
        use RequestPiece::{Text, Variable};
        assert_eq!(pieces("").unwrap(), []);
        assert_eq!(
            pieces("{scheme}://{host}{request_uri}").unwrap(),
            [
                Variable(RequestVariable::Scheme),
                Text("://".into()),
                Variable(RequestVariable::Host),
                Variable(RequestVariable::RequestUri),
            ]
        );
        assert_eq!(pieces("{ \"a\": {} }").unwrap(), [Text("{ \"a\": {} }".into())]);
        assert_eq!(pieces("{{client}").unwrap(), [Text("{".into()), Variable(RequestVariable::Client)]);
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused_with_what_can() {
        let fault = pieces("{shceme}").unwrap_err();
        assert_eq!(fault.what, "{shceme} is nothing that is known of a request");
        assert!(fault.help.starts_with("did you mean `{scheme}`?"), "{}", fault.help);
        assert!(pieces("a\nb").is_err());
    }
}
