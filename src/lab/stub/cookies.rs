//! The three cookies of a console login, and reading them back.

use http::header::{HeaderMap, HeaderValue, SET_COOKIE};

use crate::headers::cookie::cookie_values;

/// Life of the access and CSRF tokens, in seconds: Dify's 60 minutes.
pub(super) const ACCESS_LIFE: u64 = 60 * 60;
/// Life of a refresh token, in seconds: Dify's 30 days.
pub(super) const REFRESH_LIFE: u64 = 30 * 24 * 60 * 60;

/// One of the cookies; their attributes follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    Access,
    Refresh,
    Csrf,
}

impl Cookie {
    fn name(self) -> &'static str {
        match self {
            Cookie::Access => "access_token",
            Cookie::Refresh => "refresh_token",
            Cookie::Csrf => "csrf_token",
        }
    }

    fn life(self) -> u64 {
        match self {
            Cookie::Refresh => REFRESH_LIFE,
            Cookie::Access | Cookie::Csrf => ACCESS_LIFE,
        }
    }

    /// The page's scripts must read the CSRF token, and no other.
    fn http_only(self) -> &'static str {
        match self {
            Cookie::Csrf => "",
            Cookie::Access | Cookie::Refresh => "HttpOnly; ",
        }
    }

    /// The cookie's value in `headers`, looking at every `Cookie` line.
    pub(super) fn read(self, headers: &HeaderMap) -> Option<&str> {
        let value = cookie_values(headers, self.name()).next()?;
        str::from_utf8(value).ok().filter(|value| !value.is_empty())
    }

    /// Appends the `Set-Cookie` line that gives it this value.
    pub(super) fn set(self, headers: &mut HeaderMap, value: &str) {
        let life = self.life();
        self.append(
            headers,
            format!("{}={value}; Max-Age={life}; {}Path=/; SameSite=Lax", self.name(), self.http_only()),
        );
    }

    /// Appends the `Set-Cookie` line that removes it.
    pub(super) fn clear(self, headers: &mut HeaderMap) {
        let line = format!(
            "{}=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; {}Path=/; SameSite=Lax",
            self.name(),
            self.http_only()
        );
        self.append(headers, line);
    }

    fn append(self, headers: &mut HeaderMap, line: String) {
        // Values are base64url, hexadecimal or empty, so the line is always a legal header value.
        if let Ok(line) = HeaderValue::try_from(line) {
            headers.append(SET_COOKIE, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;

    use super::*;

    fn lines(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().unwrap()).collect()
    }

    #[test]
    fn only_the_csrf_cookie_is_open_to_scripts() {
        let mut headers = HeaderMap::new();
        Cookie::Access.set(&mut headers, "a");
        Cookie::Refresh.set(&mut headers, "r");
        Cookie::Csrf.set(&mut headers, "c");
        assert_eq!(
            lines(&headers),
            [
                "access_token=a; Max-Age=3600; HttpOnly; Path=/; SameSite=Lax",
                "refresh_token=r; Max-Age=2592000; HttpOnly; Path=/; SameSite=Lax",
                "csrf_token=c; Max-Age=3600; Path=/; SameSite=Lax",
            ]
        );
    }

    #[test]
    fn a_cleared_cookie_lies_in_the_past() {
        let mut headers = HeaderMap::new();
        Cookie::Csrf.clear(&mut headers);
        assert_eq!(
            lines(&headers),
            ["csrf_token=; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; SameSite=Lax"]
        );
    }

    #[test]
    fn a_cookie_is_found_on_any_line_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xcsrf_token=no; a=b"));
        headers.append(COOKIE, HeaderValue::from_static("c=d; csrf_token=yes"));
        assert_eq!(Cookie::Csrf.read(&headers), Some("yes"));
        assert_eq!(Cookie::Access.read(&headers), None);
    }
}
