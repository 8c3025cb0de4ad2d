//! Authentication of API calls: the configured bearer token (RFC 6750, section 2.1).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config;
use crate::secret::Secret;

use super::Problem;

/// Checks for the token of `admin`. The comparison takes constant time; its duration reveals at most the
/// token's length.
pub(super) fn check(admin: Option<&config::Admin>, headers: &HeaderMap) -> Result<(), Problem> {
    let token = admin.and_then(|admin| admin.token.as_ref()).ok_or(Problem::NoToken)?;
    match bearer(headers) {
        Some(sent) if is_same(token, sent) => Ok(()),
        _ => Err(Problem::Unauthorized),
    }
}

fn is_same(token: &Secret<String>, sent: &[u8]) -> bool {
    verify_slices_are_equal(token.expose().as_bytes(), sent).is_ok()
}

/// The token of the `Authorization` header. `None` unless there is exactly one line with the scheme `Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut lines = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, token) = line.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn checked(token: Option<&str>, lines: &[&str]) -> Result<(), Problem> {
        let token = token.map(|token| Secret::new(token.to_owned()));
        let admin = config::Admin {
            address: ([127, 0, 0, 1], 0).into(),
            token,
            hosts: Vec::new(),
            ready_without_store: true,
        };
        let line = |line: &&str| (AUTHORIZATION, HeaderValue::from_str(line).unwrap());
        check(Some(&admin), &lines.iter().map(line).collect())
    }

    #[test]
    fn the_token_opens_and_its_scheme_has_no_case() {
        for line in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", "BEARER 0123456789abcdef"] {
            assert_eq!(checked(Some(TOKEN), &[line]), Ok(()), "{line}");
        }
    }

    #[test]
    fn anything_else_does_not() {
        for line in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer  0123456789abcdef",
            "Basic 0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert_eq!(checked(Some(TOKEN), &[line]), Err(Problem::Unauthorized), "{line:?}");
        }
        let twice = ["Bearer 0123456789abcdef"; 2];
        assert_eq!(checked(Some(TOKEN), &twice), Err(Problem::Unauthorized));
        assert_eq!(checked(Some(TOKEN), &[]), Err(Problem::Unauthorized));
    }

    #[test]
    fn without_a_configured_token_nobody_may() {
        assert_eq!(checked(None, &["Bearer "]), Err(Problem::NoToken));
        assert_eq!(check(None, &HeaderMap::new()), Err(Problem::NoToken));
    }
}
