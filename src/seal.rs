//! Sealed values: what a client keeps for us, but can neither read nor make.
//!
//! Layout, then base64url without padding: 1 byte version, 12 bytes nonce, AES-256-GCM of some big-endian
//! u64, 16 bytes tag. What the value is for is associated data.

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

/// A key for one use, `purpose`, made from the operator's `secret`, or a random one where there is none. Fails when
/// the system gives no random numbers.
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
    /// Values of one `purpose` are worthless for another; see [`key`].
    pub fn new(secret: Option<&Secret<Vec<u8>>>, purpose: &str) -> Result<Self, RandomError> {
        let key = key(secret, purpose)?;
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| RandomError)?;
        Ok(Sealer(LessSafeKey::new(key)))
    }

    /// `None` when the system gives no random numbers.
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

    /// Whether a value is laid out like one that holds so many numbers, whichever key has sealed it, if any.
    pub fn is_laid_out<const N: usize>(value: &[u8]) -> bool {
        let whole = URL_SAFE_NO_PAD.decode(value).unwrap_or_default();
        whole.first() == Some(&VERSION) && whole.len() == 1 + NONCE_LEN + 8 * N + TAG_LEN
    }

    /// `None` unless this key sealed so many numbers for this context and nobody changed the value since.
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
