//! Identity headers: the headers with which vestibule sends the session's user to the upstream.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

use crate::config::{self, IdentitySource};
use crate::session::{Content, Contents, IdentityHeaders, IdentityMapper, Session};

pub use crate::session::IdentityError;

/// Maximum length of an identity header value, in bytes.
const MAX_VALUE: usize = 8 * 1024;

/// The compiled identity rules.
///
/// [`Identity::apply`] only adds headers. The headers of these names that the client has sent must be removed
/// before, with or without a session, or a client could send an identity of its own.
#[derive(Debug)]
pub struct Identity {
    constants: Vec<(HeaderName, HeaderValue)>,
    pointers: Vec<(HeaderName, String)>,
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
        Identity { constants, pointers }
    }

    /// Sets the constant headers and, if there is a session, its identity headers. A pointer to a missing
    /// value, to null or to an empty string sets no header.
    ///
    /// # Errors
    /// A value of the session cannot be sent as a header. `headers` then has the constant headers only.
    pub fn apply(&self, headers: &mut HeaderMap, session: Option<&Session>) -> Result<(), IdentityError> {
        for (name, value) in &self.constants {
            headers.insert(name.clone(), value.clone());
        }
        let Some(session) = session else { return Ok(()) };
        for ((name, _), value) in self.pointers.iter().zip(session.headers()?) {
            if let Some(value) = value {
                headers.insert(name.clone(), value.clone());
            }
        }
        Ok(())
    }
}

/// Makes one value per pointer.
impl IdentityMapper for Identity {
    fn ruleset_id(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.pointers.hash(&mut hasher);
        hasher.finish()
    }

    fn headers(&self, contents: &Contents) -> IdentityHeaders {
        let mut texts = Vec::with_capacity(self.pointers.len());
        for (header, pointer) in &self.pointers {
            let text = contents.find(pointer).map_or(Ok(None), header_text);
            texts.push(text.map_err(|reason| IdentityError { header: header.clone(), reason })?);
        }
        // All values share one allocation, because every session in the cache holds a set of them.
        let joined: String = texts.iter().flatten().map(|text| &**text).collect();
        let mut rest = Bytes::from(joined.into_bytes().into_boxed_slice());
        let values = texts.iter().zip(&self.pointers).map(|(text, (header, _))| {
            let value = text.as_ref().map(|text| HeaderValue::from_maybe_shared(rest.split_to(text.len())));
            let reason = "it is not a valid header value";
            value.transpose().map_err(|_| Box::new(IdentityError { header: header.clone(), reason }))
        });
        values.collect()
    }
}

/// Converts a value of the session to header text. Strings are sent as they are (UTF-8), numbers with their
/// digits as written, booleans as `true` or `false`, and lists of these joined by commas. `None` for null and
/// for an empty text.
fn header_text(value: Content<'_>) -> Result<Option<Cow<'_, str>>, &'static str> {
    let text = match value {
        Content::Null => return Ok(None),
        Content::Text(text) => text,
        Content::Number(digits) => Cow::Borrowed(digits),
        Content::Bool(flag) => Cow::Borrowed(if flag { "true" } else { "false" }),
        Content::List(items) => {
            Cow::Owned(items.iter().map(element).collect::<Result<Vec<_>, _>>()?.join(","))
        }
        Content::Object => return Err("it is an object"),
        Content::NoText => return Err("it is no text"),
    };
    if text.is_empty() { Ok(None) } else { checked(text).map(Some) }
}

fn element<'a>(value: &'a Content<'_>) -> Result<&'a str, &'static str> {
    match value {
        Content::Text(text) if text.contains(',') => Err("an element of the list has a comma"),
        Content::Text(text) => Ok(text),
        Content::Number(digits) => Ok(digits),
        Content::Bool(flag) => Ok(if *flag { "true" } else { "false" }),
        Content::Null | Content::List(_) | Content::Object | Content::NoText => {
            Err("the list holds more than plain values")
        }
    }
}

fn checked(text: Cow<'_, str>) -> Result<Cow<'_, str>, &'static str> {
    if text.len() > MAX_VALUE {
        return Err("it is longer than 8 KiB");
    }
    // A header value may contain a tab (RFC 9110 section 5.5).
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("it has a control character");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionCommand;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    /// The headers of a session with these values at `/0`, `/1` and so on.
    fn described(values: &[Value]) -> Result<Vec<Option<String>>, &'static str> {
        let name = HeaderName::from_static("x-value");
        let pointers = (0..values.len()).map(|index| (name.clone(), format!("/{index}"))).collect();
        let identity = Identity { constants: Vec::new(), pointers };
        let fields: Map<String, Value> =
            values.iter().enumerate().map(|(index, value)| (index.to_string(), value.clone())).collect();
        let text = |value: &HeaderValue| String::from_utf8(value.as_bytes().to_vec()).unwrap();
        let headers = identity.headers(&fields.into()).map_err(|error| error.reason)?;
        Ok(headers.iter().map(|value| value.as_ref().map(text)).collect())
    }

    fn shown(value: Value) -> Result<Option<String>, &'static str> {
        described(&[value]).map(|mut values| values.remove(0))
    }

    #[test]
    fn values_that_share_their_memory_are_kept_apart() {
        let values = [json!("ab"), json!(null), json!("c"), json!(12)];
        let told = described(&values).unwrap();
        assert_eq!(told, [Some("ab".to_owned()), None, Some("c".to_owned()), Some("12".to_owned())]);
    }

    #[test]
    fn plain_values_are_sent_as_text() {
        assert_eq!(shown(json!("josé")), Ok(Some("josé".into())));
        assert_eq!(shown(json!(10042)), Ok(Some("10042".into())));
        assert_eq!(shown(json!(18446744073709551615u64)), Ok(Some("18446744073709551615".into())));
        assert_eq!(shown(json!(["a", 1, true])), Ok(Some("a,1,true".into())));
        assert_eq!(shown(json!(null)), Ok(None));
        assert_eq!(shown(json!("")), Ok(None));
        assert_eq!(shown(json!(" Ada\t")), Ok(Some("Ada".into())));
        assert_eq!(shown(json!("Ada\tLovelace")), Ok(Some("Ada\tLovelace".into())));
        assert_eq!(shown(json!(" ")), Ok(None));
    }

    #[test]
    fn values_that_could_say_more_than_they_are_worth_are_refused() {
        for bad in
            [json!("a\r\nX-Admin: 1"), json!("a\u{0}"), json!({"a": 1}), json!(["a,b"]), json!([["a"]])]
        {
            assert!(shown(bad.clone()).is_err(), "{bad}");
        }
        assert!(shown(json!("x".repeat(MAX_VALUE + 1))).is_err());
    }

    proptest! {
        #[test]
        fn whatever_an_upstream_may_create_can_be_told(value in proptest::collection::vec(any::<u8>(), 0..24)) {
            for written in [[b"set; v=\"", &value[..], b"\""].concat(), [b"set; v=%\"", &value[..], b"\""].concat()] {
                if let Ok(SessionCommand::Set(fields)) = SessionCommand::parse(&written) {
                    let value = fields.get("v").cloned().unwrap_or_default();
                    prop_assert!(shown(value.clone()).is_ok(), "{}", value);
                }
            }
        }

        #[test]
        fn whatever_a_session_holds_a_header_never_breaks_its_line(text in any::<String>()) {
            if let Ok(Some(value)) = shown(Value::String(text.clone())) {
                prop_assert_eq!(&value, text.trim());
                prop_assert!(!value.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f));
            }
        }
    }
}
