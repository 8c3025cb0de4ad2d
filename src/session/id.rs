//! Session ids: generation, extraction from a request, validation.

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

/// A session id. It is a bearer credential and therefore a secret. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Secret<Arc<str>>);

impl SessionId {
    /// Takes `id` without validation. Use [`IdReader`] for ids in requests.
    pub fn new(id: &str) -> Self {
        SessionId(Secret::new(id.into()))
    }

    /// Generates an id: 256 random bits in base64url, 43 characters.
    pub fn generate() -> Result<Self, RandomError> {
        let bytes = random_bytes::<32>()?;
        Ok(SessionId(Secret::new(URL_SAFE_NO_PAD.encode(bytes).into())))
    }

    /// The id itself, for the store and `Set-Cookie` only.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

/// Allows look-ups in maps by `&str`, without allocating a `SessionId`.
impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        self.expose()
    }
}

/// Maximum number of different ids in one request.
const MAX_IDS: usize = 4;

/// The different ids in one request, in the order of the request.
#[derive(Debug, PartialEq, Eq)]
pub struct Ids<'a> {
    pub first: &'a str,
    pub others: Vec<&'a str>,
}

/// Extracts session ids from requests.
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
            // A clone of a `Regex` has its own scratch space, for which the workers would otherwise contend.
            pattern: (*config.id_pattern).clone(),
        }
    }

    /// Returns the ids in the session cookie, across all `Cookie` lines. If there is no such cookie, the
    /// configured header is read instead.
    ///
    /// A browser sends several cookies of one name if they were set for several paths or domains. Values that
    /// do not match the pattern are ignored if at least one value matches.
    ///
    /// # Errors
    /// [`AbsentReason::NoId`] without cookie and header, [`AbsentReason::BadId`] if no value matches the
    /// pattern, [`AbsentReason::Ambiguous`] for more than four different ids or for different values of the
    /// header.
    pub fn read<'a>(&self, headers: &'a HeaderMap) -> Result<Ids<'a>, AbsentReason> {
        let mut ids: Result<Ids<'_>, _> = Err(AbsentReason::NoId);
        for value in cookie_values(headers, &self.cookie) {
            match (&mut ids, self.checked(value)) {
                (Ok(ids), Some(id)) => ids.add(id)?,
                (Err(_), Some(id)) => ids = Ok(Ids { first: id, others: Vec::new() }),
                (Err(reason), None) => *reason = AbsentReason::BadId,
                (Ok(_), None) => {}
            }
        }
        match ids {
            Err(AbsentReason::NoId) => self.in_header(headers),
            ids => ids,
        }
    }

    /// Returns the first value of the cookie or else of the header, valid or not.
    pub(super) fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let in_header = || Some(headers.get(self.header.as_ref()?)?.as_bytes());
        cookie_values(headers, &self.cookie).next().or_else(in_header)
    }

    fn in_header<'a>(&self, headers: &'a HeaderMap) -> Result<Ids<'a>, AbsentReason> {
        let name = self.header.as_ref().ok_or(AbsentReason::NoId)?;
        let mut values = headers.get_all(name).into_iter();
        let first = values.next().ok_or(AbsentReason::NoId)?;
        // A header has no path or domain as a cookie has, so two different values have no legitimate cause.
        if values.any(|other| other != first) {
            return Err(AbsentReason::Ambiguous);
        }
        let id = self.checked(first.as_bytes()).ok_or(AbsentReason::BadId)?;
        Ok(Ids { first: id, others: Vec::new() })
    }

    fn checked<'a>(&self, value: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(value).ok().filter(|id| self.pattern.is_match(id))
    }
}

impl<'a> Ids<'a> {
    fn add(&mut self, id: &'a str) -> Result<(), AbsentReason> {
        if self.first != id && !self.others.contains(&id) {
            self.others.push(id);
        }
        if self.others.len() < MAX_IDS { Ok(()) } else { Err(AbsentReason::Ambiguous) }
    }
}

impl fmt::Debug for IdReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdReader").field("cookie", &self.cookie).field("header", &self.header).finish()
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

    /// All ids, separated by spaces.
    fn read(header: Option<&'static str>, lines: &[(&'static str, &str)]) -> Result<String, AbsentReason> {
        let headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let ids = reader(header).read(&headers)?;
        Ok([&[ids.first], &*ids.others].concat().join(" "))
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
    fn identical_duplicates_are_one_and_up_to_four_different_ones_are_kept_in_order() {
        let same = [("cookie", "session-id=abc; session-id=abc"), ("cookie", "session-id=abc")];
        assert_eq!(read(None, &same), Ok("abc".to_owned()));
        let different = [("cookie", "session-id=abc"), ("cookie", "session-id=abd")];
        assert_eq!(read(None, &different), Ok("abc abd".to_owned()));
        let four = [
            ("cookie", "session-id=d; session-id=c; session-id=d"),
            ("cookie", "session-id=b; session-id=a"),
        ];
        assert_eq!(read(None, &four), Ok("d c b a".to_owned()));
        let five = [four[0], four[1], ("cookie", "session-id=e")];
        assert_eq!(read(None, &five), Err(AbsentReason::Ambiguous));
    }

    #[test]
    fn what_is_no_id_is_left_out_beside_one() {
        assert_eq!(
            read(None, &[("cookie", "session-id=*; session-id=abc; session-id=")]),
            Ok("abc".to_owned())
        );
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
            if let Ok(ids) = reader(None).read(&headers) {
                let id = ids.first.as_bytes();
                prop_assert!(!id.is_empty() && id.iter().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(c)));
                prop_assert!(lines.iter().any(|line| line.windows(id.len()).any(|part| part == id)));
            }
        }
    }
}
