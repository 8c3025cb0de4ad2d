//! JSON Web Tokens (RFC 7519) signed with HS256, as small as this instance needs them.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use super::respond::json_bytes;
use crate::secret::Secret;

/// `{"alg":"HS256","typ":"JWT"}`. A token with another header is not ours, so the algorithm cannot be chosen
/// by the bearer.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// The claims of an access token (all but `login`) or a CSRF token (`exp`, `sub` and `login`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<String>,
    /// Seconds since 1970.
    pub(super) exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) iss: Option<String>,
    pub(super) sub: String,
    /// Id of the session that must still exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sid: Option<String>,
    /// Name of the login, for the ledger; says nothing of the session's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) login: Option<String>,
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("Invalid token.")]
    Malformed,
    #[error("Invalid token signature.")]
    Signature,
    #[error("Token has expired.")]
    Expired,
}

#[derive(Debug)]
pub(super) struct Signer(hmac::Key);

impl Signer {
    pub(super) fn new(key: &Secret<String>) -> Self {
        Signer(hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()))
    }

    pub(super) fn sign(&self, claims: &Claims) -> String {
        let signed = format!("{HEADER}.{}", BASE64.encode(json_bytes(claims)));
        let tag = hmac::sign(&self.0, signed.as_bytes());
        format!("{signed}.{}", BASE64.encode(tag))
    }

    /// The claims of `token` if it is ours and its `exp` lies after `now` (seconds since 1970).
    /// Compares in constant time.
    pub(super) fn verify(&self, token: &str, now: u64) -> Result<Claims, Invalid> {
        let (signed, tag) = token.rsplit_once('.').ok_or(Invalid::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Invalid::Malformed)?;
        if header != HEADER {
            return Err(Invalid::Malformed);
        }
        let tag = BASE64.decode(tag).map_err(|_| Invalid::Malformed)?;
        hmac::verify(&self.0, signed.as_bytes(), &tag).map_err(|_| Invalid::Signature)?;
        let claims = BASE64.decode(claims).map_err(|_| Invalid::Malformed)?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| Invalid::Malformed)?;
        if claims.exp <= now {
            return Err(Invalid::Expired);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer(key: &str) -> Signer {
        Signer::new(&Secret::new(key.to_owned()))
    }

    fn claims(exp: u64) -> Claims {
        Claims {
            user_id: Some("u".to_owned()),
            exp,
            iss: None,
            sub: "Console API Passport".to_owned(),
            sid: None,
            login: None,
        }
    }

    #[test]
    fn the_header_is_hs256() {
        assert_eq!(BASE64.decode(HEADER).unwrap(), br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    #[test]
    fn a_token_of_another_implementation_is_understood() {
        // HMAC-SHA256 with the key "secret", made with openssl.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQxMDI0NDQ4MDAsInN1YiI6InUifQ.pyFHW5poWXj4vHT42vSmln4KObAeNmGU9YOA46wcehA";
        assert_eq!(signer("secret").verify(token, 0).unwrap().sub, "u");
    }

    #[test]
    fn a_token_expires_at_its_second() {
        let token = signer("k").sign(&claims(100));
        assert_eq!(signer("k").verify(&token, 99), Ok(claims(100)));
        assert_eq!(signer("k").verify(&token, 100), Err(Invalid::Expired));
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let token = signer("k").sign(&claims(100));
        assert_eq!(signer("other").verify(&token, 0), Err(Invalid::Signature));
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let token =
            format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode(r#"{"exp":9,"sub":""}"#));
        assert_eq!(signer("k").verify(&token, 0), Err(Invalid::Malformed));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text in "\\PC{0,80}") {
            prop_assert!(signer("k").verify(&text, 0).is_err());
        }

        #[test]
        fn any_changed_byte_is_refused(at in 0usize..150, to in b'a'..=b'z') {
            let token = signer("k").sign(&claims(100));
            let mut bytes = token.clone().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert!(signer("k").verify(&changed, 0).is_err());
        }
    }
}
