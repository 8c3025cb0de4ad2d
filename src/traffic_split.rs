//! Sticky traffic splits: each client is assigned to a part once and keeps the assignment in a sealed cookie.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderValue};

use crate::clock::unix_seconds;
use crate::config::{Affinity, CookieAttributes, Percent};
use crate::headers::cookie::{cookie_values, unquoted};
use crate::seal::{self, Sealer};
use crate::secret::RandomError;

/// Keys shared by all splits of one kind.
#[derive(Clone)]
pub struct Keys {
    sealer: Arc<Sealer>,
    draws: hmac::Key,
}

impl Keys {
    /// Derives the cookie key and the draw key, each for its own purpose, from the operator's secret if there
    /// is one. Otherwise random keys are used, and this fails when the system's random number generator
    /// fails.
    pub fn new(config: &Affinity, cookies: &str, draws: &str) -> Result<Self, RandomError> {
        let secret = config.secret.as_ref();
        let draws = seal::key(secret, draws)?;
        Ok(Keys {
            sealer: Arc::new(Sealer::new(secret, cookies)?),
            draws: hmac::Key::new(hmac::HMAC_SHA256, draws.expose()),
        })
    }
}

/// One traffic split.
pub struct TrafficSplit {
    keys: Keys,
    cookie: String,
    /// Binds the cookie to this split: a cookie with another context is invalid.
    context: String,
    /// Makes the draws of different splits independent of each other.
    subject: String,
    attributes: CookieAttributes,
    max_age: Duration,
}

impl fmt::Debug for TrafficSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficSplit")
    }
}

impl TrafficSplit {
    /// `config` supplies the attributes and the lifetime of the cookie.
    pub fn new(keys: Keys, cookie: String, context: String, subject: String, config: &Affinity) -> Self {
        let (attributes, max_age) = (config.attributes.clone(), config.max_age);
        TrafficSplit { keys, cookie, context, subject, attributes, max_age }
    }

    /// Name of the cookie.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// The result of `read` for the content of the client's cookie, and whether half of the cookie's lifetime
    /// has passed, so that it should be renewed. Returns `None` when no valid cookie has a content that
    /// `read` accepts.
    pub fn given<T>(&self, headers: &HeaderMap, read: impl Fn(u64) -> Option<T>) -> Option<(T, bool)> {
        cookie_values(headers, &self.cookie).find_map(|value| {
            let (content, is_old) = self.open(unquoted(value))?;
            Some((read(content)?, is_old))
        })
    }

    fn open(&self, value: &[u8]) -> Option<(u64, bool)> {
        let [content, issued, expires] = self.keys.sealer.open(&self.context, value)?;
        let now = unix_seconds();
        if now >= expires || expires - now > self.max_age.as_secs() {
            return None;
        }
        Some((content, now > issued + (expires - issued) / 2))
    }

    /// The `Set-Cookie` value that holds `content`. Returns `None` when the system's random number generator
    /// fails; the client may then be assigned to another part next time.
    pub fn set_cookie(&self, content: u64, https: bool) -> Option<HeaderValue> {
        let (issued, life) = (unix_seconds(), self.max_age.as_secs());
        let value = self.keys.sealer.seal(&self.context, [content, issued, issued + life])?;
        self.attributes.set_cookie(&self.cookie, &value, self.max_age, https).ok()
    }

    /// A bucket from 0 to 9999, uniformly distributed. It is a function of the session and the secret;
    /// without a session it is random.
    pub fn bucket(&self, session: Option<&[u8]>) -> u16 {
        let lot = match session {
            Some(session) => self.bucket_of(session),
            None => fastrand::u32(..),
        };
        // The result is below 10,000, so it fits into a `u16`.
        ((u64::from(lot) * u64::from(Percent::ALL.hundredths())) >> 32) as u16
    }

    fn bucket_of(&self, session: &[u8]) -> u32 {
        let mut context = hmac::Context::with_key(&self.keys.draws);
        context.update(self.subject.as_bytes());
        context.update(b"\n");
        context.update(session);
        context.sign().as_ref().iter().take(4).fold(0, |lot, byte| lot << 8 | u32::from(*byte))
    }
}
