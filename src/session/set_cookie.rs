//! The `Set-Cookie` values that give a client its session id and take it back (RFC 6265 section 4.1).

use http::header::{HeaderValue, InvalidHeaderValue};

use crate::config::{SecureAttribute, SessionCookie};

use super::SessionId;

/// Writes the session cookie.
#[derive(Debug, Clone)]
pub struct CookieWriter {
    config: SessionCookie,
}

impl CookieWriter {
    pub fn new(config: &SessionCookie) -> Self {
        CookieWriter { config: config.clone() }
    }

    /// Gives the client `id`. `is_https`: whether the client came by https.
    pub fn set(&self, id: &SessionId, is_https: bool) -> Result<HeaderValue, InvalidHeaderValue> {
        self.write(id.expose(), self.config.max_age.as_secs(), is_https)
    }

    /// Removes the cookie that [`CookieWriter::set`] wrote: same name, path and domain.
    pub fn clear(&self, is_https: bool) -> Result<HeaderValue, InvalidHeaderValue> {
        self.write("", 0, is_https)
    }

    fn write(&self, value: &str, max_age: u64, is_https: bool) -> Result<HeaderValue, InvalidHeaderValue> {
        let SessionCookie { name, path, domain, same_site, secure, .. } = &self.config;
        let domain = domain.as_ref().map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        let secure = match secure {
            SecureAttribute::Auto => is_https,
            SecureAttribute::Always => true,
            SecureAttribute::Never => false,
        };
        let secure = if secure { "; Secure" } else { "" };
        let same_site = same_site.as_str();
        let text = format!(
            "{name}={value}; Path={path}{domain}; Max-Age={max_age}; HttpOnly; SameSite={same_site}{secure}"
        );
        let mut value = HeaderValue::try_from(text)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{ClearCookie, SameSite};

    use super::*;

    fn writer(domain: Option<&str>, secure: SecureAttribute) -> CookieWriter {
        CookieWriter::new(&SessionCookie {
            name: "session-id".to_owned(),
            path: "/app".to_owned(),
            domain: domain.map(str::to_owned),
            same_site: SameSite::Strict,
            secure,
            max_age: Duration::from_secs(3600),
            clear: ClearCookie::Ended,
            hide: false,
        })
    }

    #[test]
    fn a_new_cookie_carries_all_its_attributes() {
        let value =
            writer(Some("example.com"), SecureAttribute::Auto).set(&SessionId::new("abc"), true).unwrap();
        assert_eq!(
            value,
            "session-id=abc; Path=/app; Domain=example.com; Max-Age=3600; HttpOnly; SameSite=Strict; Secure"
        );
        assert!(value.is_sensitive());
    }

    #[test]
    fn clearing_keeps_the_attributes_and_ends_the_cookie_at_once() {
        let value = writer(None, SecureAttribute::Auto).clear(false).unwrap();
        assert_eq!(value, "session-id=; Path=/app; Max-Age=0; HttpOnly; SameSite=Strict");
    }

    #[test]
    fn secure_follows_the_configuration() {
        for (attribute, is_https, secure) in [
            (SecureAttribute::Auto, true, true),
            (SecureAttribute::Auto, false, false),
            (SecureAttribute::Always, false, true),
            (SecureAttribute::Never, true, false),
        ] {
            let value = writer(None, attribute).clear(is_https).unwrap();
            assert_eq!(value.to_str().unwrap().ends_with("; Secure"), secure, "{attribute:?} {is_https}");
        }
    }
}
