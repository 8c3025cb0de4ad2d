//! Values that must never be printed: session ids, cookies, keys, store URLs.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Holds a secret; `Debug` shows only that there is one, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub fn new(value: T) -> Self {
        Secret(value)
    }

    /// The value itself. Every call is a place where the secret leaves its cover.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Turns secrets into short marks for logs: equal secrets give equal marks within one process, and
/// a mark tells nothing about the secret (HMAC-SHA256 under a key made at start, cut to 48 bits).
pub struct Fingerprints(hmac::Key);

/// The system's random number source failed.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomError;

impl Fingerprints {
    /// Draws a fresh key.
    pub fn new() -> Result<Self, RandomError> {
        let key = random_bytes::<32>()?;
        Ok(Fingerprints(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// The mark of `secret`.
    pub fn mark(&self, secret: &str) -> Fingerprint {
        let tag = hmac::sign(&self.0, secret.as_bytes());
        let mut mark = [0; 6];
        for (to, from) in mark.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Fingerprint(mark)
    }
}

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints")
    }
}

/// A printable stand-in for a secret: twelve hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint([u8; 6]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A name for `text` that does not tell it to whoever cannot guess it: 32 hexadecimal digits of its SHA-256.
pub fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// `N` bytes from the system's cryptographic random number generator.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| RandomError)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<secret>");
    }

    #[test]
    fn equal_secrets_have_equal_marks_and_other_processes_have_others() {
        let (a, b) = (Fingerprints::new().unwrap(), Fingerprints::new().unwrap());
        assert_eq!(a.mark("id"), a.mark("id"));
        assert_ne!(a.mark("id"), a.mark("ie"));
        assert_ne!(a.mark("id"), b.mark("id"));
        assert_eq!(a.mark("id").to_string().len(), 12);
    }
}
