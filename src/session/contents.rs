//! The contents of a session as the store returns them. Only the value that a JSON Pointer names is decoded.
//!
//! All other fields may hold any value, even bytes that are not valid UTF-8; they never make a session
//! unreadable. Numbers keep the digits with which they were written.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Value};

use super::Fields;
use super::unreadable::{Unreadable, looks_like};

/// Maximum size of a session in bytes: of the JSON text, or of all names and values of a hash. A larger one
/// is [`Unreadable::TooLarge`].
pub const MAX_SESSION_BYTES: usize = 1 << 20;

/// The contents of a session. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct Contents(Form);

#[derive(Clone, PartialEq)]
enum Form {
    /// The text of one JSON object.
    Json(Arc<[u8]>),
    Hash(Arc<[Field]>),
}

/// A name and its value.
type Field = (Box<[u8]>, Box<[u8]>);

/// The value that a pointer names.
#[derive(Debug, Clone, PartialEq)]
pub enum Content<'a> {
    Null,
    Bool(bool),
    /// The digits as they are written.
    Number(&'a str),
    /// Without leading and trailing white space, which is not part of a header value (RFC 9110 section 5.5).
    Text(Cow<'a, str>),
    List(Vec<Content<'a>>),
    Object,
    /// A string that is not valid Unicode.
    NoText,
}

impl Contents {
    /// Takes the JSON text of a session.
    ///
    /// # Errors
    /// The text is not exactly one JSON object, or is longer than [`MAX_SESSION_BYTES`].
    pub fn json(text: &[u8]) -> Result<Self, Unreadable> {
        if text.len() > MAX_SESSION_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let mut reader = Deserializer::from_slice(text);
        let is_json = reader.deserialize_ignored_any(IgnoredAny).is_ok() && reader.end().is_ok();
        match (text.trim_ascii_start().starts_with(b"{"), is_json) {
            (true, true) => Ok(Contents(Form::Json(text.into()))),
            (true, false) => Err(Unreadable::NoObject("broken JSON")),
            (false, _) => Err(Unreadable::NoObject(looks_like(text))),
        }
    }

    /// Takes the fields of a hash. If a name occurs twice, the last value is used.
    ///
    /// # Errors
    /// Names and values together are longer than [`MAX_SESSION_BYTES`].
    pub fn hash(fields: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Self, Unreadable> {
        if fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_SESSION_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let fields =
            fields.into_iter().map(|(name, value)| (name.into_boxed_slice(), value.into_boxed_slice()));
        Ok(Contents(Form::Hash(fields.collect())))
    }

    /// Returns the value at `pointer`, a JSON Pointer (RFC 6901) such as `/user/name`. `None` if there is no
    /// such value, if the pointer is malformed, or if it is empty: the empty pointer names the whole session,
    /// not a field of it. If an object has two members of one name, the last one is used.
    pub fn find(&self, pointer: &str) -> Option<Content<'_>> {
        let mut tokens = pointer.strip_prefix('/')?.split('/').map(unescape);
        match &self.0 {
            Form::Json(text) => {
                let tokens: Vec<_> = tokens.collect();
                let found = Step(&tokens).deserialize(&mut Deserializer::from_slice(text));
                // The whole text was checked to be JSON in `json`, so a failure here is in the requested
                // value.
                found.map_or(Some(Content::NoText), |found| found.map(content))
            }
            Form::Hash(fields) => {
                let name = tokens.next()?;
                let (_, value) = fields.iter().rev().find(|(other, _)| **other == *name.as_bytes())?;
                let text = || {
                    str::from_utf8(value).map_or(Content::NoText, |text| Content::Text(text.trim().into()))
                };
                tokens.next().is_none().then(text)
            }
        }
    }
}

/// Serialises the fields as JSON.
impl From<Fields> for Contents {
    fn from(fields: Fields) -> Self {
        Contents(Form::Json(Value::Object(fields).to_string().into_bytes().into()))
    }
}

/// Prints nothing of the content.
impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

fn content(raw: &RawValue) -> Content<'_> {
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<String>(text) {
            Ok(text) if text.trim() == text => Content::Text(text.into()),
            Ok(text) => Content::Text(text.trim().to_owned().into()),
            Err(_) => Content::NoText,
        },
        Some(b'[') => match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(items) => Content::List(items.into_iter().map(item).collect()),
            Err(_) => Content::NoText,
        },
        Some(b'{') => Content::Object,
        Some(b't') => Content::Bool(true),
        Some(b'f') => Content::Bool(false),
        Some(b'n') | None => Content::Null,
        Some(_) => Content::Number(text),
    }
}

/// An element of a list. A nested list is returned empty: no header uses it, and decoding it could recurse
/// without limit.
fn item(raw: &RawValue) -> Content<'_> {
    match raw.get().starts_with('[') {
        true => Content::List(Vec::new()),
        false => content(raw),
    }
}

/// Follows the tokens of a pointer through JSON text and skips all other values without decoding them.
#[derive(Clone, Copy)]
struct Step<'a>(&'a [Cow<'a, str>]);

impl<'de> DeserializeSeed<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            [] => serde::Deserialize::deserialize(reader).map(Some),
            _ => reader.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, Some((token, rest))) = (None, self.0.split_first()) else { return Ok(None) };
        while let Some(is_it) = map.next_key_seed(Is(token))? {
            match is_it {
                true => found = map.next_value_seed(Step(rest))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Some((token, rest)) = self.0.split_first() else { return Ok(None) };
        let (wanted, mut found) = (index(token), None);
        for at in 0.. {
            let is_there = match wanted == Some(at) {
                true => items.next_element_seed(Step(rest))?.map(|value| found = value).is_some(),
                false => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !is_there {
                break;
            }
        }
        Ok(found)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// Compares a member name with this one, as bytes: other names may not be valid text.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<bool, E> {
        Ok(name == self.0.as_bytes())
    }
}

fn unescape(token: &str) -> Cow<'_, str> {
    match token.contains('~') {
        true => Cow::Owned(token.replace("~1", "/").replace("~0", "~")),
        false => Cow::Borrowed(token),
    }
}

/// RFC 6901 section 4: an array index has no leading zero.
fn index(token: &str) -> Option<usize> {
    let canonical = token == "0" || token.starts_with(|first: char| ('1'..='9').contains(&first));
    canonical.then(|| token.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "user": {"id": 42, "": "empty", "a/b": 1, "m~n": 2, "0": "zero"}, "roles": ["x", ["y"]], "": 0,
            "text": " é a\n", "null": null, "true": true
        })
    }

    /// The value found, converted to JSON. An object becomes `{}`, a list within a list `[]`.
    fn look(contents: &Contents, pointer: &str) -> Option<Value> {
        fn value(content: Content<'_>) -> Value {
            match content {
                Content::Null => Value::Null,
                Content::Bool(is) => json!(is),
                Content::Number(text) => serde_json::from_str(text).unwrap(),
                Content::Text(text) => json!(text),
                Content::List(items) => items.into_iter().map(value).collect(),
                Content::Object => json!({}),
                Content::NoText => panic!("no text"),
            }
        }
        contents.find(pointer).map(value)
    }

    fn json_of(value: &Value) -> Contents {
        Contents::json(value.to_string().as_bytes()).unwrap()
    }

    fn hash_of(fields: &[(&[u8], &[u8])]) -> Contents {
        Contents::hash(fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()).unwrap()
    }

    #[test]
    fn names_and_indices_are_followed() {
        let contents = json_of(&sample());
        for (pointer, expected) in [
            ("/user/id", json!(42)),
            ("/roles/1/0", json!("y")),
            ("/roles", json!(["x", []])),
            ("/user/a~1b", json!(1)),
            ("/user/m~0n", json!(2)),
            ("/", json!(0)),
            ("/text", json!("é a")),
            ("/null", json!(null)),
            ("/true", json!(true)),
            ("/user", json!({})),
        ] {
            assert_eq!(look(&contents, pointer), Some(expected), "{pointer}");
        }
    }

    #[test]
    fn what_is_not_there_is_none() {
        let contents = json_of(&sample());
        for pointer in [
            "",
            "user",
            "/nobody",
            "/user/id/x",
            "/roles/2",
            "/roles/-",
            "/roles/01",
            "/roles/+1",
            "/text/0",
            "/null/a",
            "/true/a",
            "/roles/x",
        ] {
            assert_eq!(look(&contents, pointer), None, "{pointer}");
        }
        assert_eq!(hash_of(&[(b"a", b"{\"b\":1}")]).find("/a/b"), None);
        assert_eq!(hash_of(&[(b"a", b"1")]).find(""), None);
    }

    #[test]
    fn numbers_keep_their_digits() {
        for digits in [
            "107691503500061507151",
            "107691503500061507152",
            "1.50",
            "-0",
            "1E5",
            "0.1000000000000000055511151231257827",
        ] {
            let contents =
                Contents::json(format!("{{\"a\": {digits} , \"b\": [{digits}]}}").as_bytes()).unwrap();
            assert_eq!(contents.find("/a"), Some(Content::Number(digits)));
            assert_eq!(contents.find("/b"), Some(Content::List(vec![Content::Number(digits)])));
        }
    }

    #[test]
    fn what_nobody_asks_for_may_be_anything() {
        for other in [
            &b"\"draft\": \"half \\ud83d\""[..],
            b"\"draft\": \"\xff\xfe\"",
            b"\"\xff\": 1",
            b"\"\\udc00\": 1",
            b"\"big\": 1e999999",
            b"\"o\": {\"user_id\": 1, \"user_id\": \"\xff\"}",
        ] {
            let text = [b"{", other, b", \"user_id\": \"42\", \"o\": {\"x\": \"\xff\", \"id\": 7}}"].concat();
            let contents = Contents::json(&text).unwrap();
            assert_eq!(contents.find("/user_id"), Some(Content::Text("42".into())));
            assert_eq!(contents.find("/o/id"), Some(Content::Number("7")));
        }
        let hash = hash_of(&[(b"cart", b"\xff\x00"), (b"\xff", b"x"), (b"user_id", b"42")]);
        assert_eq!(hash.find("/user_id"), Some(Content::Text("42".into())));
    }

    #[test]
    fn what_is_asked_for_and_is_no_text_is_not_taken_for_absent() {
        for value in [&b"\"\xff\""[..], b"\"half \\ud83d\""] {
            let text = [b"{\"a\": ", value, b", \"l\": [", value, b"]}"].concat();
            let contents = Contents::json(&text).unwrap();
            assert_eq!(contents.find("/a"), Some(Content::NoText));
            assert!(matches!(contents.find("/l"), Some(Content::NoText)) || value != b"\"\xff\"");
        }
        assert_eq!(hash_of(&[(b"a", b"\xff")]).find("/a"), Some(Content::NoText));
    }

    #[test]
    fn depth_is_no_danger() {
        let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
        let text = [&b"{\"deep\": "[..], &deep, b", \"user_id\": 1}"].concat();
        let contents = Contents::json(&text).unwrap();
        assert_eq!(contents.find("/user_id"), Some(Content::Number("1")));
        assert_eq!(contents.find("/deep"), Some(Content::List(vec![Content::List(Vec::new())])));
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let large = vec![b'x'; MAX_SESSION_BYTES];
        assert_eq!(Contents::hash(vec![(b"a".to_vec(), large.clone())]), Err(Unreadable::TooLarge));
        let text = [&b"{\"a\": \""[..], &large, b"\"}"].concat();
        assert_eq!(Contents::json(&text), Err(Unreadable::TooLarge));
    }

    #[test]
    fn the_last_of_two_members_of_one_name_counts() {
        let contents = Contents::json(b"{\"a\": 1, \"a\": {\"b\": 2}, \"c\": {\"d\": 1}, \"c\": 3}").unwrap();
        assert_eq!(contents.find("/a/b"), Some(Content::Number("2")));
        assert_eq!(contents.find("/c/d"), None);
    }

    #[test]
    fn debug_does_not_show_the_content() {
        assert_eq!(format!("{:?}", hash_of(&[(b"a", b"hunter2")])), "Contents { .. }");
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(pointer in "(/(user|roles|id|0|1|01|a~1b|m~0n|~01|x|text|null)?){1,4}") {
            let flat = |value: &Value| match value {
                Value::Object(_) => json!({}),
                Value::Array(items) => items.iter().map(|item| if item.is_array() { json!([]) } else { item.clone() }).collect(),
                Value::String(text) => json!(text.trim()),
                value => value.clone(),
            };
            prop_assert_eq!(look(&json_of(&sample()), &pointer), sample().pointer(&pointer).map(flat));
        }

        #[test]
        fn no_bytes_make_reading_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            for text in [text.clone(), [b"{\"a\":", &text[..], b"}"].concat()] {
                if let Ok(contents) = Contents::json(&text) {
                    let _ = (contents.find("/a"), contents.find("/a/0"), contents.find("/a/a"));
                }
            }
        }
    }
}
