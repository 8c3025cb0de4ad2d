//! Names and values of user-chosen headers.

use http::header::{HeaderName, HeaderValue};

use crate::config::fault::Fault;

/// Headers that the proxy itself reads, sets or removes.
const NEEDED: [&str; 21] = [
    "host",
    "cookie",
    "connection",
    "content-length",
    "transfer-encoding",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// A header name that the proxy does not use itself, in any spelling.
pub(super) fn free_name(text: &str) -> Result<HeaderName, Fault> {
    let name: HeaderName = text.parse().map_err(|_| {
        Fault::new(
            format!("{text:?} is not a header name"),
            "it cannot be sent",
            "use letters, digits and `-`, such as \"X-Tenant\"",
        )
    })?;
    if NEEDED.contains(&spelling(&name).as_str()) {
        return Err(Fault::new(
            format!("{text:?} is a header the proxy needs for itself"),
            "requests would be misdirected, cut or attributed to the wrong client",
            "choose another name",
        ));
    }
    Ok(name)
}

/// A header value. The fault does not quote it.
pub(super) fn value(text: &str) -> Result<HeaderValue, Fault> {
    let value = HeaderValue::from_str(text).ok().filter(|_| text.trim() == text);
    value.ok_or_else(|| {
        Fault::new(
            "this is not a header value",
            "it cannot be sent as it stands",
            "leave out line breaks, control characters and spaces at the ends",
        )
    })
}

/// Whether CGI or WSGI applications see two different names as the same one.
pub(super) fn are_confused(a: &HeaderName, b: &HeaderName) -> bool {
    a != b && spelling(a) == spelling(b)
}

fn spelling(name: &HeaderName) -> String {
    name.as_str().replace(['_', '.'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_proxy_are_refused_in_any_spelling() {
        for name in ["Host", "X_Forwarded_For", "x.request.id", "Transfer-Encoding", "TE"] {
            let fault = free_name(name).unwrap_err();
            assert_eq!(fault.what, format!("{name:?} is a header the proxy needs for itself"));
        }
        assert_eq!(free_name("X-Forwarded-User").unwrap(), "x-forwarded-user");
        assert_eq!(free_name("a b").unwrap_err().what, "\"a b\" is not a header name");
    }

    #[test]
    fn names_that_differ_in_punctuation_only_are_confused() {
        let name = |text: &str| text.parse::<HeaderName>().unwrap();
        assert!(are_confused(&name("X-User-Id"), &name("x_user.id")));
        assert!(!are_confused(&name("X-User-Id"), &name("x-user-id")));
        assert!(!are_confused(&name("X-User-Id"), &name("x-userid")));
    }

    #[test]
    fn values_hold_no_line_breaks_and_no_outer_spaces() {
        assert_eq!(value("a b").unwrap(), "a b");
        for bad in ["a\nb", "a\r", " a", "a ", "\0"] {
            assert!(value(bad).is_err(), "{bad:?}");
        }
    }
}
