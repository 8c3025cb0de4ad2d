//! Sealed values: authenticated encryption of numbers that the client stores, for example in a cookie, and
//! can neither read nor forge.
//!
//! Format, encoded as base64url without padding: 1 byte version, 12 bytes nonce, the AES-256-GCM ciphertext
//! of a fixed count of big-endian `u64`, 16 bytes tag. The context is authenticated as associated data, so
//! that a value is valid only for the context it was sealed for.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::{RandomError, Secret, random_bytes};

const VERSION: u8 = 1;
const TAG_LEN: usize = 16;

/// Seals and opens values under one key.
pub struct Sealer(LessSafeKey);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

/// Derives the key for one `purpose` from the operator's `secret` (HMAC-SHA256). Without a secret, every call
/// returns another random key. Fails if the system has no random numbers.
pub fn key(secret: Option<&Secret<Vec<u8>>>, purpose: &str) -> Result<Secret<[u8; 32]>, RandomError> {
    let random;
    let material: &[u8] = match secret {
        Some(secret) => secret.expose(),
        None => {
            random = random_bytes::<32>()?;
            &random
        }
    };
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, material), purpose.as_bytes());
    tag.as_ref().try_into().map(Secret::new).map_err(|_| RandomError)
}

impl Sealer {
    /// Creates a sealer with the [`key`] for `purpose`. Values sealed for one purpose do not open for
    /// another.
    pub fn new(secret: Option<&Secret<Vec<u8>>>, purpose: &str) -> Result<Self, RandomError> {
        let key = key(secret, purpose)?;
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| RandomError)?;
        Ok(Sealer(LessSafeKey::new(key)))
    }

    /// Encrypts `numbers` for `context`. `None` if the system has no random numbers.
    pub fn seal<const N: usize>(&self, context: &str, numbers: [u64; N]) -> Option<String> {
        let nonce = random_bytes::<NONCE_LEN>().ok()?;
        let mut sealed = Vec::with_capacity(8 * N + TAG_LEN);
        for number in numbers {
            sealed.extend_from_slice(&number.to_be_bytes());
        }
        let nonce_value = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(nonce_value, Aad::from(context), &mut sealed).ok()?;
        let mut whole = vec![VERSION];
        whole.extend_from_slice(&nonce);
        whole.append(&mut sealed);
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    /// Returns whether `value` has the format of a sealed value with `N` numbers. The key is not checked.
    pub fn is_laid_out<const N: usize>(value: &[u8]) -> bool {
        let whole = URL_SAFE_NO_PAD.decode(value).unwrap_or_default();
        whole.first() == Some(&VERSION) && whole.len() == 1 + NONCE_LEN + 8 * N + TAG_LEN
    }

    /// Decrypts `value`. `None` unless it was sealed with this key, for this context and with `N` numbers,
    /// and is unmodified.
    pub fn open<const N: usize>(&self, context: &str, value: &[u8]) -> Option<[u64; N]> {
        let mut whole = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (version, rest) = whole.split_first_mut()?;
        if *version != VERSION || rest.len() != NONCE_LEN + 8 * N + TAG_LEN {
            return None;
        }
        let (nonce, sealed) = rest.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let content = self.0.open_in_place(nonce, Aad::from(context), sealed).ok()?;
        let mut numbers = [0; N];
        for (number, bytes) in numbers.iter_mut().zip(content.chunks_exact(8)) {
            *number = u64::from_be_bytes(bytes.try_into().ok()?);
        }
        Some(numbers)
    }
}
