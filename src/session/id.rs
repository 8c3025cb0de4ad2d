//! The value that names a session: made, found in a request, checked.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::HeaderName;
use regex::Regex;

use crate::config;
use crate::headers::cookie::cookie_values;
use crate::secret::{RandomError, Secret, random_bytes};

use super::AbsentReason;

/// A session id. Whoever knows it is the user, so it is a secret. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Secret<Arc<str>>);

impl SessionId {
    /// Takes `id` as it is; requests are read with [`IdReader`].
    pub fn new(id: &str) -> Self {
        SessionId(Secret::new(id.into()))
    }

    /// A fresh id: 256 random bits in base64url, 43 characters.
    pub fn generate() -> Result<Self, RandomError> {
        let bytes = random_bytes::<32>()?;
        Ok(SessionId(Secret::new(URL_SAFE_NO_PAD.encode(bytes).into())))
    }

    /// The id itself; for the store and `Set-Cookie` only.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// So that what is kept by id can be looked for without making one.
impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        self.expose()
    }
}

/// Reads the session id of a request.
pub struct IdReader {
    cookie: String,
    header: Option<HeaderName>,
    pattern: Regex,
}

impl IdReader {
    pub fn new(config: &config::Session) -> Self {
        IdReader {
            cookie: config.cookie.name.clone(),
            header: config.header.clone(),
            // A clone has its own scratch space, which workers would otherwise contend for.
            pattern: (*config.id_pattern).clone(),
        }
    }

    /// The id in the cookie of all `Cookie` lines, or without such a cookie in the configured header.
    ///
    /// The same value several times is one id; two different values are none, since an upstream
    /// might choose the other one.
    pub fn read<'a>(&self, headers: &'a HeaderMap) -> Result<&'a str, AbsentReason> {
        let value = match only(cookie_values(headers, &self.cookie))? {
            Some(value) => value,
            None => self.in_header(headers)?.ok_or(AbsentReason::NoId)?,
        };
        match std::str::from_utf8(value) {
            Ok(id) if self.pattern.is_match(id) => Ok(id),
            _ => Err(AbsentReason::BadId),
        }
    }

    fn in_header<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, AbsentReason> {
        let Some(name) = &self.header else { return Ok(None) };
        only(headers.get_all(name).into_iter().map(|value| value.as_bytes()))
    }
}

impl fmt::Debug for IdReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdReader").field("cookie", &self.cookie).field("header", &self.header).finish()
    }
}

/// The one value that all of `values` are.
fn only<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<Option<&'a [u8]>, AbsentReason> {
    let first = values.next();
    match values.all(|value| Some(value) == first) {
        true => Ok(first),
        false => Err(AbsentReason::Ambiguous),
    }
}

#[cfg(test)]
mod tests {
    use http::header::{COOKIE, HeaderValue};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn reader(header: Option<&'static str>) -> IdReader {
        IdReader {
            cookie: "session-id".to_owned(),
            header: header.map(HeaderName::from_static),
            pattern: Regex::new("^(?:[A-Za-z0-9_-]{1,128})$").unwrap(),
        }
    }

    fn read(header: Option<&'static str>, lines: &[(&'static str, &str)]) -> Result<String, AbsentReason> {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        reader(header).read(&headers).map(str::to_owned)
    }

    #[test]
    fn generated_ids_are_43_url_safe_characters_and_differ() {
        let (a, b) = (SessionId::generate().unwrap(), SessionId::generate().unwrap());
        assert_eq!(a.expose().len(), 43);
        assert!(a.expose().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        assert_ne!(a, b);
    }

    #[test]
    fn debug_does_not_show_the_id() {
        assert!(!format!("{:?}", SessionId::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn the_id_is_found_on_any_cookie_line() {
        let lines = [("cookie", "a=1"), ("cookie", "b=2; session-id=abc")];
        assert_eq!(read(None, &lines), Ok("abc".to_owned()));
    }

    #[test]
    fn identical_duplicates_are_one_and_different_ones_are_none() {
        let same = [("cookie", "session-id=abc; session-id=abc"), ("cookie", "session-id=abc")];
        assert_eq!(read(None, &same), Ok("abc".to_owned()));
        let different = [("cookie", "session-id=abc"), ("cookie", "session-id=abd")];
        assert_eq!(read(None, &different), Err(AbsentReason::Ambiguous));
    }

    #[test]
    fn the_header_counts_only_without_the_cookie() {
        let header = ("x-session-id", "fromheader");
        assert_eq!(read(Some("x-session-id"), &[header]), Ok("fromheader".to_owned()));
        assert_eq!(read(Some("x-session-id"), &[header, ("cookie", "session-id=abc")]), Ok("abc".to_owned()));
        assert_eq!(
            read(Some("x-session-id"), &[header, ("cookie", "session-id=")]),
            Err(AbsentReason::BadId)
        );
        assert_eq!(
            read(Some("x-session-id"), &[header, ("x-session-id", "other")]),
            Err(AbsentReason::Ambiguous)
        );
        assert_eq!(read(None, &[header]), Err(AbsentReason::NoId));
    }

    #[test]
    fn what_does_not_match_the_pattern_whole_is_bad() {
        for value in ["\"abc\"", "abc*", "a b", "", &"a".repeat(129)] {
            assert_eq!(read(None, &[("cookie", &format!("session-id={value}"))]), Err(AbsentReason::BadId));
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_bad() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_bytes(b"session-id=\xff").unwrap());
        assert_eq!(reader(None).read(&headers), Err(AbsentReason::BadId));
    }

    proptest! {
        #[test]
        fn what_is_read_is_an_id_that_stands_in_the_request(lines in vec(vec(any::<u8>(), 0..12), 0..3)) {
            let lines: Vec<Vec<u8>> = lines.iter().map(|line| [b"session-id=", &line[..]].concat()).collect();
            let valid = lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok());
            let headers: HeaderMap = valid.map(|line| (COOKIE, line)).collect();
            if let Ok(id) = reader(None).read(&headers) {
                let id = id.as_bytes();
                prop_assert!(!id.is_empty() && id.iter().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(c)));
                prop_assert!(lines.iter().any(|line| line.windows(id.len()).any(|part| part == id)));
            }
        }
    }
}
