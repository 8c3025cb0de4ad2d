//! Values that must never be printed: session ids, cookies, keys, store URLs.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// Wraps a secret. `Debug` prints a placeholder, and `Display` is not implemented.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub fn new(value: T) -> Self {
        Secret(value)
    }

    /// The secret in clear text. Every call is a place where it may leak.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// Computes short fingerprints of secrets for logs. Within one process, equal secrets have equal
/// fingerprints. A fingerprint does not reveal the secret: it is HMAC-SHA256 under a random key made at
/// start, truncated to 48 bits.
pub struct Fingerprints(hmac::Key);

/// The system's random number generator failed.
#[derive(Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct RandomError;

impl Fingerprints {
    /// Generates a random key.
    pub fn new() -> Result<Self, RandomError> {
        let key = random_bytes::<32>()?;
        Ok(Fingerprints(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// Returns the fingerprint of `secret`.
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

/// A printable substitute for a secret: 12 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint([u8; 6]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Returns the first 32 hexadecimal digits of the SHA-256 of `text`. This hides `text` only if it cannot be
/// guessed.
pub fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns `N` bytes from the system's cryptographic random number generator.
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
