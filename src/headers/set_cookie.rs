//! `Set-Cookie` values with configured attributes (RFC 6265 section 4.1, RFC 6265bis).

use std::time::Duration;

use http::header::{HeaderValue, InvalidHeaderValue};

/// Cross-site requests with which a browser sends the cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    /// Navigations only.
    Lax,
    /// None.
    Strict,
    /// All, including frames in pages of other sites. Browsers require `Secure`.
    None,
}

/// Whether the cookie has the `Secure` attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureAttribute {
    /// If the client used https.
    Auto,
    Always,
    Never,
}

/// The attributes of a cookie except its age. `HttpOnly` is always set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieAttributes {
    /// Begins with `/`.
    pub path: String,
    /// `None`: host-only cookie.
    pub domain: Option<String>,
    pub same_site: SameSite,
    pub secure: SecureAttribute,
    /// Whether each embedding site has its own cookie (CHIPS). Browsers require `Secure`.
    pub partitioned: bool,
}

impl Default for CookieAttributes {
    fn default() -> Self {
        CookieAttributes {
            path: "/".to_owned(),
            domain: None,
            same_site: SameSite::Lax,
            secure: SecureAttribute::Auto,
            partitioned: false,
        }
    }
}

impl CookieAttributes {
    /// Formats a cookie for a client that used https or not. A `max_age` of zero removes the cookie. Without
    /// `Secure`, attributes that browsers would reject are adapted: `Partitioned` is omitted and
    /// `SameSite=None` becomes `Lax`. Fails when a part is not valid in a header.
    pub fn set_cookie(
        &self,
        name: &str,
        value: &str,
        max_age: Duration,
        is_https: bool,
    ) -> Result<HeaderValue, InvalidHeaderValue> {
        let CookieAttributes { path, domain, partitioned, .. } = self;
        let domain = domain.as_ref().map(|domain| format!("; Domain={domain}")).unwrap_or_default();
        let is_secure = match self.secure {
            SecureAttribute::Auto => is_https,
            SecureAttribute::Always => true,
            SecureAttribute::Never => false,
        };
        let same_site = match self.same_site {
            SameSite::Strict => "Strict",
            SameSite::None if is_secure => "None",
            SameSite::Lax | SameSite::None => "Lax",
        };
        let secure = if is_secure { "; Secure" } else { "" };
        let partitioned = if *partitioned && is_secure { "; Partitioned" } else { "" };
        let max_age = max_age.as_secs();
        let text = format!(
            "{name}={value}; Path={path}{domain}; Max-Age={max_age}; HttpOnly; SameSite={same_site}{secure}{partitioned}"
        );
        let mut value = HeaderValue::try_from(text)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn written(attributes: &CookieAttributes, is_https: bool) -> String {
        let value = attributes.set_cookie("session-id", "abc", HOUR, is_https).unwrap();
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn all_attributes_are_written_in_a_fixed_order() {
        let attributes = CookieAttributes {
            path: "/app".to_owned(),
            domain: Some("example.com".to_owned()),
            same_site: SameSite::Strict,
            ..CookieAttributes::default()
        };
        assert_eq!(
            written(&attributes, true),
            "session-id=abc; Path=/app; Domain=example.com; Max-Age=3600; HttpOnly; SameSite=Strict; Secure"
        );
        assert_eq!(
            attributes.set_cookie("session-id", "", Duration::ZERO, false).unwrap(),
            "session-id=; Path=/app; Domain=example.com; Max-Age=0; HttpOnly; SameSite=Strict"
        );
    }

    #[test]
    fn secure_follows_the_configuration() {
        for (secure, is_https, expected) in [
            (SecureAttribute::Auto, true, true),
            (SecureAttribute::Auto, false, false),
            (SecureAttribute::Always, false, true),
            (SecureAttribute::Never, true, false),
        ] {
            let attributes = CookieAttributes { secure, ..CookieAttributes::default() };
            assert_eq!(
                written(&attributes, is_https).ends_with("; Secure"),
                expected,
                "{secure:?} {is_https}"
            );
        }
    }

    #[test]
    fn what_needs_secure_is_not_written_without_it() {
        let attributes =
            CookieAttributes { same_site: SameSite::None, partitioned: true, ..CookieAttributes::default() };
        assert!(written(&attributes, true).ends_with("; SameSite=None; Secure; Partitioned"));
        assert!(written(&attributes, false).ends_with("; HttpOnly; SameSite=Lax"));
    }
}
