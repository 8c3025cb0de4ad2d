//! Parses the session command in an upstream's response, the header `Vestibule-Session`.
//!
//! ```text
//! Vestibule-Session = set / end
//! set               = "set" *( OWS ";" OWS field )
//! end               = "end"
//! field             = name "=" ( token / quoted-string / display-string )
//! name              = token
//! ```
//! `token`, `quoted-string` and `OWS` are defined in RFC 9110 section 5.6, `display-string` in RFC 9651
//! section 3.3.8. A quoted string that is not valid UTF-8 is read as ISO 8859-1, which WSGI servers and Node
//! write. Keywords and names are case-sensitive. Example: `set; user_id="42"; name="A \"b\""`.

use http::HeaderMap;
use http::header::HeaderName;
use serde_json::Value;

use super::Fields;
use super::renewal::{CREATED, EXPIRES};

/// The response header with a session command.
pub const CONTROL_HEADER: HeaderName = HeaderName::from_static("vestibule-session");
/// Maximum length of its value, in bytes.
pub const MAX_CONTROL_BYTES: usize = 4096;

/// A command of an upstream about the session of a request.
#[derive(Clone, PartialEq, Eq)]
pub enum SessionCommand {
    /// Create a new session with these fields.
    Set(Fields),
    /// End the session.
    End,
}

/// Why a session command is rejected. A rejected command has no effect at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionCommandError {
    #[error("more than one Vestibule-Session header")]
    Repeated,
    #[error("Vestibule-Session is longer than {MAX_CONTROL_BYTES} bytes")]
    TooLong,
    #[error("Vestibule-Session does not keep to its grammar")]
    Malformed,
    #[error("Vestibule-Session names a field twice")]
    DuplicateField,
    #[error("Vestibule-Session names a field that vestibule writes itself")]
    ReservedField,
}

impl SessionCommand {
    /// Parses the command in the headers of a response. `None` if there is no such header.
    ///
    /// # Errors
    /// The header occurs more than once, or its value is invalid.
    pub fn from_headers(headers: &HeaderMap) -> Result<Option<Self>, SessionCommandError> {
        let mut values = headers.get_all(CONTROL_HEADER).into_iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => Self::parse(value.as_bytes()).map(Some),
            (Some(_), Some(_)) => Err(SessionCommandError::Repeated),
        }
    }

    /// Parses one header value.
    pub fn parse(value: &[u8]) -> Result<Self, SessionCommandError> {
        if value.len() > MAX_CONTROL_BYTES {
            return Err(SessionCommandError::TooLong);
        }
        let mut rest = Reader(value);
        match rest.token()? {
            "end" if rest.0.is_empty() => Ok(SessionCommand::End),
            "set" => rest.fields().map(SessionCommand::Set),
            _ => Err(SessionCommandError::Malformed),
        }
    }
}

/// Prints nothing of the fields.
impl std::fmt::Debug for SessionCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SessionCommand::Set(_) => "Set",
            SessionCommand::End => "End",
        })
    }
}

/// The rest of a header value that is not parsed yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn fields(&mut self) -> Result<Fields, SessionCommandError> {
        let mut fields = Fields::new();
        while !self.0.is_empty() {
            self.skip_space();
            self.expect(b';')?;
            self.skip_space();
            let name = self.token()?;
            self.expect(b'=')?;
            let value = match self.0 {
                [b'"', ..] => self.quoted_string()?,
                [b'%', b'"', ..] => self.display_string()?,
                _ => self.token()?.to_owned(),
            };
            if [CREATED, EXPIRES].contains(&name) {
                return Err(SessionCommandError::ReservedField);
            }
            if fields.insert(name.to_owned(), Value::String(value)).is_some() {
                return Err(SessionCommandError::DuplicateField);
            }
        }
        Ok(fields)
    }

    fn skip_space(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn expect(&mut self, byte: u8) -> Result<(), SessionCommandError> {
        match self.next() {
            Some(next) if next == byte => Ok(()),
            _ => Err(SessionCommandError::Malformed),
        }
    }

    fn token(&mut self) -> Result<&'a str, SessionCommandError> {
        match std::str::from_utf8(self.take_while(is_token_byte)) {
            Ok(token) if !token.is_empty() => Ok(token),
            _ => Err(SessionCommandError::Malformed),
        }
    }

    fn quoted_string(&mut self) -> Result<String, SessionCommandError> {
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            match self.next().ok_or(SessionCommandError::Malformed)? {
                b'"' => break,
                b'\\' => text.push(self.next().filter(is_text_byte).ok_or(SessionCommandError::Malformed)?),
                byte if is_text_byte(&byte) => text.push(byte),
                _ => return Err(SessionCommandError::Malformed),
            }
        }
        let text = String::from_utf8(text);
        fit(text.unwrap_or_else(|error| error.as_bytes().iter().copied().map(char::from).collect()))
    }

    /// `%"M%c3%bcller"`
    fn display_string(&mut self) -> Result<String, SessionCommandError> {
        self.expect(b'%')?;
        self.expect(b'"')?;
        let mut text = Vec::new();
        loop {
            match self.next().ok_or(SessionCommandError::Malformed)? {
                b'"' => break,
                b'%' => text.push(self.hex_digit()? << 4 | self.hex_digit()?),
                byte @ b' '..=b'~' => text.push(byte),
                _ => return Err(SessionCommandError::Malformed),
            }
        }
        fit(String::from_utf8(text).map_err(|_| SessionCommandError::Malformed)?)
    }

    fn hex_digit(&mut self) -> Result<u8, SessionCommandError> {
        match self.next() {
            Some(digit @ b'0'..=b'9') => Ok(digit - b'0'),
            Some(digit @ b'a'..=b'f') => Ok(digit - b'a' + 10),
            _ => Err(SessionCommandError::Malformed),
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !wanted(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }
}

/// Rejects control characters except tab, including U+0080 to U+009F: an identity header could not carry
/// them.
fn fit(text: String) -> Result<String, SessionCommandError> {
    match text.chars().any(|c| c.is_control() && c != '\t') {
        true => Err(SessionCommandError::Malformed),
        false => Ok(text),
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// True for a tab and for every byte that is not an ASCII control character.
fn is_text_byte(byte: &u8) -> bool {
    *byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: &str) -> Value {
        match SessionCommand::parse(value.as_bytes()).unwrap() {
            SessionCommand::Set(fields) => Value::Object(fields),
            SessionCommand::End => panic!("end"),
        }
    }

    fn error(value: &str) -> SessionCommandError {
        SessionCommand::parse(value.as_bytes()).unwrap_err()
    }

    #[test]
    fn set_takes_tokens_and_quoted_strings() {
        assert_eq!(
            set(r#"set; user_id="42"; name="A \"b\" \\ ü"; plan=pro;x="" "#.trim_end()),
            json!({"user_id": "42", "name": "A \"b\" \\ ü", "plan": "pro", "x": ""})
        );
        assert_eq!(set("set\t; a=1"), json!({"a": "1"}));
        assert_eq!(set("set"), json!({}));
    }

    #[test]
    fn names_are_read_however_applications_write_them() {
        let expected = Ok(SessionCommand::Set(Fields::from_iter([("name".to_owned(), json!("Zoë Müller"))])));
        for written in [
            &b"set; name=\"Zo\xc3\xab M\xc3\xbcller\""[..],
            b"set; name=\"Zo\xeb M\xfcller\"",
            b"set; name=%\"Zo%c3%ab M%c3%bcller\"",
        ] {
            assert_eq!(SessionCommand::parse(written), expected);
        }
        assert_eq!(set("set; a=%\"50%25 \\\"; b=%x"), json!({"a": "50% \\", "b": "%x"}));
    }

    #[test]
    fn end_stands_alone() {
        assert_eq!(SessionCommand::parse(b"end"), Ok(SessionCommand::End));
        assert_eq!(error("end; a=1"), SessionCommandError::Malformed);
    }

    #[test]
    fn anything_else_is_malformed() {
        for value in [
            "",
            "SET",
            "sets",
            "set a=1",
            "set;",
            "set; ",
            "set; a",
            "set; a=",
            "set; =1",
            "set; a =1",
            "set; a= 1",
            "set; a=1;",
            "set; a=1,b=2",
            "set; a=\"1",
            "set; a=\"1\\",
            "set; a=\"1\"x",
            "set; a=\"1\" ",
            "set; ä=1",
            "set; a=ä",
            "set, end",
            " end",
            "end ",
        ] {
            assert_eq!(error(value), SessionCommandError::Malformed, "{value:?}");
        }
        for value in ["\u{85}", "\u{9f}"] {
            assert_eq!(error(&format!("set; a=\"{value}\"")), SessionCommandError::Malformed, "{value:?}");
        }
        assert_eq!(SessionCommand::parse(b"set; a=\"\xff\x85\""), Err(SessionCommandError::Malformed));
        for display in [
            "%\"%C3%BC\"",
            "%\"%c3\"",
            "%\"%0a\"",
            "%\"%7f\"",
            "%\"ü\"",
            "%\"%c\"",
            "%\"a",
            "%\"a\"b",
            "%\"a\tb\"",
        ] {
            assert_eq!(error(&format!("set; a={display}")), SessionCommandError::Malformed, "{display}");
        }
        assert_eq!(SessionCommand::parse(b"set; a=\"\x07\""), Err(SessionCommandError::Malformed));
        assert_eq!(SessionCommand::parse(b"set; a=\"\\\x07\""), Err(SessionCommandError::Malformed));
    }

    #[test]
    fn duplicate_and_reserved_fields_are_errors() {
        assert_eq!(error("set; a=1; a=1"), SessionCommandError::DuplicateField);
        assert_eq!(error("set; expires=99999999999"), SessionCommandError::ReservedField);
        assert_eq!(error("set; created=1"), SessionCommandError::ReservedField);
    }

    #[test]
    fn the_length_is_bounded() {
        let longest = format!("set; a={}", "x".repeat(MAX_CONTROL_BYTES - 7));
        assert!(SessionCommand::parse(longest.as_bytes()).is_ok());
        assert_eq!(error(&format!("{longest}x")), SessionCommandError::TooLong);
    }

    #[test]
    fn an_answer_says_one_thing_or_nothing() {
        let mut headers = HeaderMap::new();
        assert_eq!(SessionCommand::from_headers(&headers), Ok(None));
        headers.append(CONTROL_HEADER, HeaderValue::from_static("end"));
        assert_eq!(SessionCommand::from_headers(&headers), Ok(Some(SessionCommand::End)));
        headers.append(CONTROL_HEADER, HeaderValue::from_static("end"));
        assert_eq!(SessionCommand::from_headers(&headers), Err(SessionCommandError::Repeated));
    }

    #[test]
    fn debug_does_not_show_fields() {
        assert_eq!(format!("{:?}", SessionCommand::parse(b"set; name=hunter2").unwrap()), "Set");
    }

    proptest! {
        #[test]
        fn what_is_written_by_the_grammar_is_read_back(
            fields in proptest::collection::btree_map("[a-z!#_.-]{1,8}", "[^\\x00-\\x08\\x0a-\\x1f\\x7f-\\u{9f}]{0,20}", 0..6)
        ) {
            prop_assume!(!fields.contains_key("expires") && !fields.contains_key("created"));
            let written: String = fields
                .iter()
                .map(|(name, value)| format!("; {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            prop_assert_eq!(set(&format!("set{written}")), json!(fields));
        }

        #[test]
        fn no_bytes_make_reading_panic(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = SessionCommand::parse(&value);
            let _ = SessionCommand::parse(&[b"set; a=", &value[..]].concat());
        }
    }
}
