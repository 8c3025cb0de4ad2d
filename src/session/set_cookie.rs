//! `Set-Cookie` values that set and clear the session cookie.

use std::time::Duration;

use http::header::{HeaderValue, InvalidHeaderValue};

use crate::config::SessionCookie;

use super::SessionId;

/// Builds the `Set-Cookie` values of the session cookie.
#[derive(Debug, Clone)]
pub struct CookieWriter {
    config: SessionCookie,
}

impl CookieWriter {
    pub fn new(config: &SessionCookie) -> Self {
        CookieWriter { config: config.clone() }
    }

    /// Sets the cookie to `id`. `is_https`: whether the client's connection uses https.
    pub fn set(&self, id: &SessionId, is_https: bool) -> Result<HeaderValue, InvalidHeaderValue> {
        let SessionCookie { name, attributes, max_age, .. } = &self.config;
        attributes.set_cookie(name, id.expose(), *max_age, is_https)
    }

    /// Clears the cookie that [`CookieWriter::set`] has set: same name, path and domain.
    pub fn clear(&self, is_https: bool) -> Result<HeaderValue, InvalidHeaderValue> {
        self.config.attributes.set_cookie(&self.config.name, "", Duration::ZERO, is_https)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClearCookie, CookieAttributes};

    #[test]
    fn clearing_keeps_the_attributes_and_ends_the_cookie_at_once() {
        let attributes = CookieAttributes { path: "/app".to_owned(), ..CookieAttributes::default() };
        let max_age = Duration::from_secs(3600);
        let writer = CookieWriter::new(&SessionCookie {
            name: "session-id".to_owned(),
            attributes,
            max_age,
            clear: ClearCookie::Ended,
            hide: false,
        });
        let set = writer.set(&SessionId::new("abc"), true).unwrap();
        assert_eq!(set, "session-id=abc; Path=/app; Max-Age=3600; HttpOnly; SameSite=Lax; Secure");
        let cleared = writer.clear(false).unwrap();
        assert_eq!(cleared, "session-id=; Path=/app; Max-Age=0; HttpOnly; SameSite=Lax");
    }
}
