//! What the upstream is told about the user, and what a client may not say itself.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::config::{self, IdentitySource};
use crate::headers::name::NameSet;
use crate::session::Session;

/// Longest value that is sent as a header, in bytes.
const MAX_VALUE: usize = 8 * 1024;

/// The compiled identity rules. Stripping comes first and always, whether or not there is a session.
#[derive(Debug)]
pub struct Identity {
    asserted: NameSet,
    constants: Vec<(HeaderName, HeaderValue)>,
    pointers: Vec<(HeaderName, String)>,
}

/// A session holds a value that cannot be sent as a header. The request must not go on as somebody else
/// or nobody, so this is an error.
#[derive(Debug, thiserror::Error)]
#[error("the session's value for {header} cannot be a header: {reason}")]
pub struct IdentityError {
    pub header: HeaderName,
    pub reason: &'static str,
}

impl Identity {
    pub fn new(config: &config::Identity) -> Self {
        let (mut constants, mut pointers) = (Vec::new(), Vec::new());
        for header in &config.headers {
            match &header.source {
                IdentitySource::Constant(value) => constants.push((header.name.clone(), value.clone())),
                IdentitySource::Pointer(pointer) => pointers.push((header.name.clone(), pointer.clone())),
            }
        }
        let asserted = NameSet::new(config.headers.iter().map(|header| header.name.as_str()));
        Identity { asserted, constants, pointers }
    }

    /// The names only we may assert.
    pub fn asserted(&self) -> &NameSet {
        &self.asserted
    }

    /// Writes the constant headers, and those of `session` if there is one. A pointer that leads nowhere, to
    /// null or to an empty string sends no header.
    pub fn apply(&self, headers: &mut HeaderMap, session: Option<&Session>) -> Result<(), IdentityError> {
        for (name, value) in &self.constants {
            headers.insert(name.clone(), value.clone());
        }
        let Some(session) = session else { return Ok(()) };
        let values = session.headers(|session| self.values(session))?;
        for ((name, _), value) in self.pointers.iter().zip(values) {
            if let Some(value) = value {
                headers.insert(name.clone(), value.clone());
            }
        }
        Ok(())
    }

    /// One value per pointer.
    fn values(&self, session: &Session) -> Result<Box<[Option<HeaderValue>]>, IdentityError> {
        let value = |(name, pointer): &(HeaderName, String)| match session.lookup(pointer) {
            Some(value) => {
                header_value(value).map_err(|reason| IdentityError { header: name.clone(), reason })
            }
            None => Ok(None),
        };
        self.pointers.iter().map(value).collect()
    }
}

/// A session's value as a header: strings as they are (UTF-8), numbers and booleans as JSON writes them,
/// lists of these joined by commas.
fn header_value(value: &Value) -> Result<Option<HeaderValue>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => checked(text).map(Some),
        Value::Number(number) => checked(&number.to_string()).map(Some),
        Value::Bool(flag) => Ok(Some(HeaderValue::from_static(if *flag { "true" } else { "false" }))),
        Value::Array(items) => {
            let items = items.iter().map(element).collect::<Result<Vec<_>, _>>()?;
            if items.is_empty() { Ok(None) } else { checked(&items.join(",")).map(Some) }
        }
        Value::Object(_) => Err("it is an object"),
    }
}

fn element(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) if text.contains(',') => Err("an element of the list has a comma"),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("the list holds more than plain values"),
    }
}

fn checked(text: &str) -> Result<HeaderValue, &'static str> {
    if text.len() > MAX_VALUE {
        return Err("it is longer than 8 KiB");
    }
    if text.chars().any(char::is_control) {
        return Err("it has a control character");
    }
    if text.trim() != text {
        return Err("it begins or ends with white space");
    }
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "it is not a valid header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn shown(value: Value) -> Result<Option<String>, &'static str> {
        header_value(&value)
            .map(|value| value.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap()))
    }

    #[test]
    fn plain_values_are_sent_as_text() {
        assert_eq!(shown(json!("josé")), Ok(Some("josé".into())));
        assert_eq!(shown(json!(10042)), Ok(Some("10042".into())));
        assert_eq!(shown(json!(18446744073709551615u64)), Ok(Some("18446744073709551615".into())));
        assert_eq!(shown(json!(["a", 1, true])), Ok(Some("a,1,true".into())));
        assert_eq!(shown(json!(null)), Ok(None));
        assert_eq!(shown(json!("")), Ok(None));
    }

    #[test]
    fn values_that_could_say_more_than_they_are_worth_are_refused() {
        for bad in [
            json!("a\r\nX-Admin: 1"),
            json!("a\u{0}"),
            json!({"a": 1}),
            json!(["a,b"]),
            json!([["a"]]),
            json!(" a"),
        ] {
            assert!(shown(bad.clone()).is_err(), "{bad}");
        }
        assert!(shown(json!("x".repeat(MAX_VALUE + 1))).is_err());
    }

    proptest! {
        #[test]
        fn whatever_a_session_holds_a_header_never_breaks_its_line(text in any::<String>()) {
            if let Ok(Some(value)) = header_value(&Value::String(text.clone())) {
                prop_assert_eq!(value.as_bytes(), text.as_bytes());
                prop_assert!(!value.as_bytes().iter().any(|byte| *byte < 0x20 || *byte == 0x7f));
            }
        }
    }
}
