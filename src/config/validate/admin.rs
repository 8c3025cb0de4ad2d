//! `[admin]`.

use super::listen::socket_address;
use crate::config::fault::Fault;
use crate::config::file::Node;
use crate::config::model::Admin;
use crate::config::reference::resolve;
use crate::config::section::Section;
use crate::config::value::{boolean, text};
use crate::secret::Secret;

/// Minimum length of the token, in bytes.
const TOKEN_BYTES: usize = 16;

pub(super) fn admin(s: &mut Section<'_>) -> Admin {
    Admin {
        address: s.value("address", socket_address, Admin::DEFAULT_ADDRESS),
        token: s.optional("token", token),
        hosts: s.list("hosts", host),
        ready_without_store: s.value("ready_without_store", boolean, true),
    }
}

/// A host name as in the `Host` header, without a port.
fn host(node: &Node) -> Result<String, Fault> {
    let text = text(node)?;
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.split('.').all(is_label) {
        return Ok(name);
    }
    Err(Fault::new(
        format!("{text:?} is not a host name"),
        "no request would be for it",
        "write the name alone, such as \"vestibule.example.com\"; addresses need not be listed",
    ))
}

/// A reference to the token.
fn token(node: &Node) -> Result<Secret<String>, Fault> {
    let read = || checked(resolve(text(node)?).unwrap_or_else(|| Err(in_the_open()))?);
    read().map_err(|fault| Fault { hidden: true, ..fault })
}

fn in_the_open() -> Fault {
    Fault::new(
        "the token itself stands in the file",
        "whoever may read this file could end sessions and take instances out",
        "write \"env:NAME\" or \"file:/path\", and replace this token: it is no secret any more",
    )
}

fn checked(bytes: Vec<u8>) -> Result<Secret<String>, Fault> {
    let length = bytes.len();
    let help = "make one with `openssl rand -hex 16`, and write \"env:NAME\" or \"file:/path\" here";
    if length < TOKEN_BYTES {
        let what = format!("the token has {length} bytes, not {TOKEN_BYTES} or more");
        return Err(Fault::new(what, "a short token can be found by trying", help));
    }
    let token = String::from_utf8(bytes).ok().filter(|token| token.bytes().all(|c| c.is_ascii_graphic()));
    token.map(Secret::new).ok_or_else(|| {
        let what = "the token holds something else than visible ASCII characters";
        Fault::new(what, "no client could send it in a header", help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_without_port_or_scheme() {
        let of =
            |text: &str| host(&Node { span: 0..0, value: crate::config::file::Value::Text(text.to_owned()) });
        assert_eq!(of("Vestibule.Example.com.").unwrap(), "vestibule.example.com");
        for bad in ["", "a:1", "http://a", "*.example.com", "a..b", "[::1]", "a b"] {
            assert_eq!(of(bad).unwrap_err().what, format!("{bad:?} is not a host name"));
        }
    }

    #[test]
    fn a_token_is_long_enough_and_can_be_sent() {
        let shortest = "0123456789abcde~";
        assert_eq!(checked(shortest.into()).unwrap().expose(), shortest);
        let what = |token: &str| checked(token.into()).unwrap_err().what;
        assert_eq!(what("0123456789abcde"), "the token has 15 bytes, not 16 or more");
        for token in ["0123456789 abcdef", "0123456789abcdef\n", "0123456789abcdeé"] {
            assert_eq!(what(token), "the token holds something else than visible ASCII characters");
        }
        assert!(checked(vec![0xff; 16]).is_err());
    }
}
