//! The sealed value of an affinity cookie.
//!
//! Layout, then base64url without padding: 1 byte version, 12 bytes nonce, AES-256-GCM of the tie (four
//! big-endian u64), 16 bytes tag. The upstream's name is associated data.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::{RandomError, Secret, random_bytes};

const VERSION: u8 = 1;
const TIE_LEN: usize = 32;
const TAG_LEN: usize = 16;
const SEALED_LEN: usize = 1 + NONCE_LEN + TIE_LEN + TAG_LEN;
/// Binds a key made from the operator's secret to this one use.
const PURPOSE: &[u8] = b"vestibule affinity cookie v1";

/// The content of a cookie; times are Unix seconds.
pub(super) struct Tie {
    pub(super) instance: u64,
    pub(super) tied: u64,
    pub(super) seen: u64,
    pub(super) expires: u64,
}

pub(super) struct Sealer(LessSafeKey);

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A key made from `secret`, or a random one.
    pub(super) fn new(secret: Option<&Secret<Vec<u8>>>) -> Result<Self, RandomError> {
        let random;
        let material: &[u8] = match secret {
            Some(secret) => secret.expose(),
            None => {
                random = random_bytes::<32>()?;
                &random
            }
        };
        let key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, material), PURPOSE);
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).map_err(|_| RandomError)?;
        Ok(Sealer(LessSafeKey::new(key)))
    }

    pub(super) fn seal(&self, upstream: &str, tie: &Tie) -> Option<String> {
        let nonce = random_bytes::<NONCE_LEN>().ok()?;
        let mut sealed = Vec::with_capacity(SEALED_LEN);
        for number in [tie.instance, tie.tied, tie.seen, tie.expires] {
            sealed.extend_from_slice(&number.to_be_bytes());
        }
        let nonce_value = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(nonce_value, Aad::from(upstream), &mut sealed).ok()?;
        let mut whole = vec![VERSION];
        whole.extend_from_slice(&nonce);
        whole.append(&mut sealed);
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    /// `None` unless this key sealed the value for this upstream and nobody changed it since.
    pub(super) fn open(&self, upstream: &str, value: &[u8]) -> Option<Tie> {
        let mut whole = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (version, rest) = whole.split_first_mut()?;
        if *version != VERSION || rest.len() != SEALED_LEN - 1 {
            return None;
        }
        let (nonce, sealed) = rest.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let tie = self.0.open_in_place(nonce, Aad::from(upstream), sealed).ok()?;
        let mut numbers =
            tie.chunks_exact(8).filter_map(|bytes| bytes.try_into().ok().map(u64::from_be_bytes));
        Some(Tie {
            instance: numbers.next()?,
            tied: numbers.next()?,
            seen: numbers.next()?,
            expires: numbers.next()?,
        })
    }
}
