//! Affinity cookies for sticky mode.

use std::time::Duration;

use aws_lc_rs::hmac;
use http::HeaderValue;

use crate::clock::unix_seconds;
use crate::config::{self, CookieAttributes};
use crate::seal::{self, Sealer};
use crate::secret::{RandomError, Secret};
use crate::upstream::InstanceId;

/// Domain separation: the key derived from the operator's secret is used for this purpose only.
const PURPOSE: &str = "vestibule affinity cookie v1";

/// Reads and writes the affinity cookies of all upstreams.
///
/// The cookie name consists of the configured name and the upstream. The value is sealed: the client can
/// neither read nor change it, and the cookie of one upstream is invalid for another.
#[derive(Debug)]
pub struct Affinity {
    cookie: String,
    attributes: CookieAttributes,
    max_age: Duration,
    sealer: Sealer,
    hashing: hmac::Key,
}

/// Result of reading an affinity cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AffinityCookie {
    /// There is no cookie.
    None,
    /// The cookie failed verification: it was forged, altered, issued for another upstream or sealed with
    /// another secret.
    Forged,
    /// The cookie has expired.
    Expired,
    /// The client is bound to an instance.
    Tied(Binding),
}

/// A binding of a client to an instance. Times are Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    pub instance: InstanceId,
    /// Random client number, drawn when the client got its first binding.
    pub client: u64,
    /// When the instance was chosen.
    pub since: u64,
    /// When the cookie was last written, which is a lower bound of the client's last request.
    pub seen: u64,
    /// Whether more than half of the cookie's lifetime has passed.
    pub old: bool,
}

impl Affinity {
    /// Fails when the system's random number generator fails. Random numbers are needed for a key when no
    /// secret is configured.
    pub fn new(config: &config::Affinity) -> Result<Self, RandomError> {
        Ok(Affinity {
            cookie: config.cookie.clone(),
            attributes: config.attributes.clone(),
            max_age: config.max_age,
            sealer: Sealer::new(config.secret.as_ref(), PURPOSE)?,
            hashing: hashing_key(config.secret.as_ref())?,
        })
    }

    /// Keyed hash of a request property. Clients cannot predict it, and it is equal in all processes with the
    /// same secret.
    pub fn key(&self, text: &[u8]) -> u64 {
        let tag = hmac::sign(&self.hashing, text);
        tag.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte))
    }

    /// Name of the cookie for one upstream.
    pub fn cookie_name(&self, upstream: &str) -> String {
        format!("{}-{upstream}", self.cookie)
    }

    /// Reads the value of the cookie for `upstream`.
    pub fn read(&self, upstream: &str, value: &[u8]) -> AffinityCookie {
        let now = unix_seconds();
        match self.sealer.open(upstream, value) {
            None => AffinityCookie::Forged,
            Some([_, _, _, seen, expires])
                if now >= expires || expires - now > self.max_age.as_secs() || seen > expires =>
            {
                AffinityCookie::Expired
            }
            Some([instance, client, since, seen, expires]) => AffinityCookie::Tied(Binding {
                instance: InstanceId(instance),
                client,
                since,
                seen,
                old: now > seen + (expires - seen) / 2,
            }),
        }
    }

    /// Whether a value has the format of [`Affinity::seal`], with any secret.
    pub fn is_like_ours(value: &[u8]) -> bool {
        Sealer::is_laid_out::<5>(value)
    }

    /// Seals the binding of `client` to `instance`, chosen at `since` (Unix seconds) and seen now. Returns
    /// `None` when the system's random number generator fails; the client then gets no binding.
    pub fn seal(&self, upstream: &str, client: u64, instance: InstanceId, since: u64) -> Option<String> {
        let seen = unix_seconds();
        self.sealer.seal(upstream, [instance.0, client, since, seen, seen + self.max_age.as_secs()])
    }

    /// The `Set-Cookie` value that holds [`Affinity::seal`].
    pub fn set_cookie(
        &self,
        upstream: &str,
        client: u64,
        instance: InstanceId,
        since: u64,
        https: bool,
    ) -> Option<HeaderValue> {
        let value = self.seal(upstream, client, instance, since)?;
        self.attributes.set_cookie(&self.cookie_name(upstream), &value, self.max_age, https).ok()
    }
}

/// Derives the hash key from the operator's secret, or from random bytes.
fn hashing_key(secret: Option<&Secret<Vec<u8>>>) -> Result<hmac::Key, RandomError> {
    let key = seal::key(secret, "vestibule choice by hash v1")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key.expose()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn affinity(secret: Option<&str>, max_age: u64) -> Affinity {
        let secret = secret.map(|text| Secret::new(text.as_bytes().to_vec()));
        let (cookie, attributes) = ("tie".into(), CookieAttributes::default());
        let config = config::Affinity { cookie, attributes, max_age: Duration::from_secs(max_age), secret };
        Affinity::new(&config).unwrap()
    }

    fn issue(affinity: &Affinity) -> String {
        let cookie = affinity.set_cookie("app", 3, InstanceId(7), 5, true).unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        cookie.strip_prefix("tie-app=").unwrap().split(';').next().unwrap().to_string()
    }

    #[test]
    fn a_cookie_is_read_back_by_every_process_with_the_secret() {
        let secret = Some("0123456789abcdef0123456789abcdef");
        let value = issue(&affinity(secret, 60));
        let hint = affinity(secret, 60).read("app", value.as_bytes());
        let AffinityCookie::Tied(tied) = hint else { panic!("{hint:?}") };
        assert_eq!((tied.instance, tied.client, tied.since, tied.old), (InstanceId(7), 3, 5, false));
        assert!(unix_seconds() - tied.seen < 5);
        assert_eq!(affinity(None, 60).read("app", value.as_bytes()), AffinityCookie::Forged);
    }

    #[test]
    fn golden_a_cookie_of_any_version_is_read() {
        let affinity = affinity(Some("0123456789abcdef0123456789abcdef"), 20_000_000_000);
        let tied = Binding { instance: InstanceId(7), client: 3, since: 5, seen: 0, old: false };
        assert_eq!(affinity.read("app", b"AczfcmztnXiI61-DsjYldKpQoY0959y8TvNhc2hPBBzNTyTw8MM1F7s0WmkY9DlP_zddtK_rXKjOk4_EoSZOx5woS7C4"), AffinityCookie::Tied(tied));
        assert_eq!(affinity.key(b"x"), 0xc8a50d6db4b05a78);
        assert_eq!(InstanceId::of("127.0.0.1:5001".parse().unwrap()), InstanceId(0x9724dfd73b0253a3));
        assert_eq!(InstanceId::of("[::1]:5001".parse().unwrap()), InstanceId(0x219ff15b3cef00ba));
    }

    #[test]
    fn what_another_process_sealed_is_told_from_what_an_application_wrote() {
        let value = issue(&affinity(None, 60));
        assert!(Affinity::is_like_ours(value.as_bytes()));
        let shorter = &value[..value.len() - 4];
        let other = format!("B{}", &value[1..]);
        for text in ["", "abc", "0f8fad5bd9cb469fa16570867728950e", shorter, &other] {
            assert!(!Affinity::is_like_ours(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn another_upstreams_cookie_is_forged() {
        let affinity = affinity(None, 60);
        assert_eq!(affinity.read("other", issue(&affinity).as_bytes()), AffinityCookie::Forged);
    }

    #[test]
    fn a_choice_by_hash_is_the_same_in_every_process_with_the_secret() {
        let secret = Some("0123456789abcdef0123456789abcdef");
        assert_eq!(affinity(secret, 60).key(b"x"), affinity(secret, 9).key(b"x"));
        assert_ne!(affinity(secret, 60).key(b"x"), affinity(secret, 60).key(b"y"));
        assert_ne!(affinity(None, 60).key(b"x"), affinity(None, 60).key(b"x"));
    }

    #[test]
    fn every_altered_byte_makes_a_forgery() {
        let affinity = affinity(None, 60);
        let value = issue(&affinity);
        for place in 0..value.len() {
            let mut altered = value.clone().into_bytes();
            altered[place] = if altered[place] == b'A' { b'B' } else { b'A' };
            assert_eq!(affinity.read("app", &altered), AffinityCookie::Forged, "byte {place}");
        }
        assert_eq!(affinity.read("app", b""), AffinityCookie::Forged);
        assert_eq!(affinity.read("app", "é".as_bytes()), AffinityCookie::Forged);
    }

    #[test]
    fn a_tie_that_outlives_the_configured_age_is_over() {
        let secret = Some("0123456789abcdef0123456789abcdef");
        let value = issue(&affinity(secret, 60));
        assert_eq!(affinity(secret, 10).read("app", value.as_bytes()), AffinityCookie::Expired);
    }
    proptest! {
        #[test]
        fn nothing_but_the_value_itself_is_believed(place in any::<Index>(), byte in any::<u8>()) {
            let affinity = affinity(None, 60);
            let value = issue(&affinity).into_bytes();
            let mut altered = value.clone();
            altered[place.index(value.len())] = byte;
            let believed = matches!(affinity.read("app", &altered), AffinityCookie::Tied(_));
            prop_assert_eq!(believed, altered == value);
        }

        #[test]
        fn made_up_values_are_forgeries(value in proptest::collection::vec(any::<u8>(), 0..100)) {
            let text = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &value);
            let affinity = affinity(None, 60);
            prop_assert_eq!(affinity.read("app", &value), AffinityCookie::Forged);
            prop_assert_eq!(affinity.read("app", text.as_bytes()), AffinityCookie::Forged);
        }
    }
}
