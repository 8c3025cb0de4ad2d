//! `[identity]`: the headers that carry the user's identity to the upstream.

use http::header::HeaderName;

use super::header::{are_confused, free_name, value};
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::model::{Identity, IdentityHeader, IdentitySource};
use crate::config::section::Section;
use crate::config::value::{choice, text};

/// Header names with the JSON Pointers of their values.
type Preset = &'static [(&'static str, &'static str)];

const X_USER: Preset = &[("x-user-id", "/user_id"), ("x-user-name", "/name"), ("x-user-email", "/email")];

const OAUTH2_PROXY: Preset = &[
    ("x-forwarded-user", "/user_id"),
    ("x-forwarded-email", "/email"),
    ("x-forwarded-preferred-username", "/name"),
    ("x-forwarded-groups", "/groups"),
];

const REMOTE_USER: Preset = &[
    ("remote-user", "/user_id"),
    ("remote-name", "/name"),
    ("remote-email", "/email"),
    ("remote-groups", "/groups"),
];

pub(super) fn identity(s: &mut Section<'_>) -> Identity {
    let presets = choice(&[
        ("x-user", X_USER),
        ("oauth2-proxy", OAUTH2_PROXY),
        ("remote-user", REMOTE_USER),
        ("none", &[]),
    ]);
    let preset = s.value("preset", presets, X_USER);
    let mut headers: Vec<_> = preset.iter().map(preset_header).collect();
    let mut own = Vec::new();
    for (spot, header) in s.entries("headers", header) {
        match clash(&header.name, &own, &headers) {
            Some(fault) => s.fault(spot, fault),
            None => {
                own.push(header.name.clone());
                headers.retain(|preset| preset.name != header.name);
                headers.push(header);
            }
        }
    }
    Identity { headers }
}

fn preset_header(&(name, pointer): &(&'static str, &str)) -> IdentityHeader {
    let source = IdentitySource::Pointer(pointer.to_owned());
    IdentityHeader { name: HeaderName::from_static(name), source }
}

fn header(name: &str, node: &Node) -> Result<IdentityHeader, Fault> {
    let name = free_name(name)?;
    let source = match &node.value {
        Value::Text(pointer) => IdentitySource::Pointer(checked_pointer(pointer)?),
        Value::Table(table) => match table.entries() {
            [only] if only.key == "value" => IdentitySource::Constant(value(text(&only.node)?)?),
            _ => return Err(no_source()),
        },
        _ => return Err(no_source()),
    };
    Ok(IdentityHeader { name, source })
}

/// An RFC 6901 pointer to a member.
pub(super) fn checked_pointer(pointer: &str) -> Result<String, Fault> {
    let mut escapes = pointer.split('~').skip(1);
    if pointer.starts_with('/') && escapes.all(|rest| rest.starts_with(['0', '1'])) {
        return Ok(pointer.to_owned());
    }
    Err(Fault::new(
        format!("{pointer:?} is not a JSON Pointer to a member of the session"),
        "the header would never be sent",
        "write it like \"/user_id\" (`~0` for `~`, `~1` for `/` in a name); a constant is { value = \"…\" }",
    ))
}

fn no_source() -> Fault {
    Fault::new(
        "this is no source for a header's value",
        "the header would never be sent",
        "write a JSON Pointer such as \"/user_id\", or { value = \"constant\" }",
    )
}

fn clash(name: &HeaderName, own: &[HeaderName], all: &[IdentityHeader]) -> Option<Fault> {
    if own.contains(name) {
        let why = "which of the two is sent would be left to chance";
        return Some(Fault::new(format!("`{name}` stands here twice"), why, "leave one of them out"));
    }
    let other = all.iter().find(|other| are_confused(&other.name, name))?;
    Some(Fault::new(
        format!("`{name}` and `{}` differ in punctuation only", other.name),
        "many applications take them for one header, and a user could be taken for another",
        format!("write `{}`, or choose another name", other.name),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_can_say_what_another_preset_would() {
        let claims = crate::headers::claims::claims();
        for (name, _) in [X_USER, OAUTH2_PROXY, REMOTE_USER].into_iter().flatten() {
            assert!(claims.matches(name), "{name}");
        }
    }

    #[test]
    fn pointers_lead_to_a_member() {
        for good in ["/user_id", "/a/b", "/~0~1", "/"] {
            assert_eq!(checked_pointer(good).unwrap(), good);
        }
        for bad in ["", "user_id", "/a~", "/a~2", "$.user"] {
            assert!(checked_pointer(bad).is_err(), "{bad}");
        }
    }
}
