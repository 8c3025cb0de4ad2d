//! Expiry from the session's own `expires` field, and the TTL to renew to.

use std::time::Duration;

use super::{Content, Contents, Ttl, Unreadable};

/// Field with the time at which a session expires, in Unix seconds.
pub(super) const EXPIRES: &str = "expires";
/// Field with the time at which vestibule created a session, in Unix seconds.
pub(super) const CREATED: &str = "created";

/// Returns the session's `expires` as time since the Unix epoch. `None` if the field is missing or `null`:
/// the session has no expiry of its own. Times before the epoch become zero, times out of range
/// [`Duration::MAX`].
///
/// # Errors
/// [`Unreadable::Expires`] if the value is neither a number nor a string with a number: it is then unknown
/// whether the session is live.
pub(super) fn expires(contents: &Contents) -> Result<Option<Duration>, Unreadable> {
    let seconds = match contents.find("/expires") {
        None | Some(Content::Null) => return Ok(None),
        // A JSON number out of range parses as infinity.
        Some(Content::Number(digits)) => digits.parse().ok(),
        Some(Content::Text(text)) => text.parse().ok().filter(|seconds: &f64| seconds.is_finite()),
        Some(_) => None,
    };
    let seconds = seconds.ok_or(Unreadable::Expires)?;
    Ok(Some(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

/// Returns the TTL to set, or `None` if no renewal is due. A renewal is due once a tenth of `idle` has passed
/// since the last one. The new TTL is `idle`, but at most `left`, the time until the session's own `expires`.
/// Never shortens a TTL, and never adds one to a key without TTL.
pub(super) fn renewed_ttl(ttl: Ttl, idle: Duration, left: Option<Duration>) -> Option<Duration> {
    let Ttl::Left(ttl) = ttl else { return None };
    let target = left.map_or(idle, |left| left.min(idle));
    let due = !ttl.is_zero() && ttl < idle / 10 * 9;
    (due && target > ttl).then_some(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const IDLE: Duration = Duration::from_secs(1000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn expires_of(value: Value) -> Result<Option<Duration>, Unreadable> {
        expires(&Contents::json(json!({ EXPIRES: value }).to_string().as_bytes()).unwrap())
    }

    #[test]
    fn expires_is_read_from_numbers_and_strings() {
        assert_eq!(expires_of(json!(1_700_000_000)), Ok(Some(seconds(1_700_000_000))));
        assert_eq!(expires_of(json!("1700000000")), Ok(Some(seconds(1_700_000_000))));
        assert_eq!(expires_of(json!(1.5)), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(expires_of(json!(-5)), Ok(Some(Duration::ZERO)));
        assert_eq!(expires_of(json!(1e300)), Ok(Some(Duration::MAX)));
    }

    #[test]
    fn no_expires_is_no_end() {
        assert_eq!(expires(&Contents::json(b"{}").unwrap()), Ok(None));
        assert_eq!(expires_of(Value::Null), Ok(None));
    }

    #[test]
    fn an_unreadable_expires_is_neither_live_nor_over() {
        for value in [json!("soon"), json!(""), json!("NaN"), json!("inf"), json!(true), json!([1])] {
            assert_eq!(expires_of(value.clone()), Err(Unreadable::Expires), "{value}");
        }
    }

    #[test]
    fn a_ttl_is_renewed_below_nine_tenths_only() {
        assert_eq!(renewed_ttl(Ttl::Left(seconds(900)), IDLE, None), None);
        assert_eq!(renewed_ttl(Ttl::Left(seconds(899)), IDLE, None), Some(IDLE));
        assert_eq!(renewed_ttl(Ttl::Left(seconds(5000)), IDLE, None), None);
    }

    #[test]
    fn a_key_without_ttl_and_one_about_to_go_are_left_alone() {
        assert_eq!(renewed_ttl(Ttl::Never, IDLE, None), None);
        assert_eq!(renewed_ttl(Ttl::Unknown, IDLE, None), None);
        assert_eq!(renewed_ttl(Ttl::Left(Duration::ZERO), IDLE, None), None);
    }

    #[test]
    fn expires_caps_the_renewal() {
        let ttl = Ttl::Left(seconds(100));
        assert_eq!(renewed_ttl(ttl, IDLE, Some(seconds(300))), Some(seconds(300)));
        assert_eq!(renewed_ttl(ttl, IDLE, Some(seconds(100))), None);
    }

    proptest! {
        #[test]
        fn renewal_lengthens_and_stays_below_both_limits(ttl in 0u64..4000, left in 0u64..4000, idle in 1u64..4000) {
            let (ttl, left, idle) = (seconds(ttl), seconds(left), seconds(idle));
            if let Some(renewed) = renewed_ttl(Ttl::Left(ttl), idle, Some(left)) {
                prop_assert!(renewed > ttl && renewed <= idle && renewed <= left);
            }
        }

        #[test]
        fn no_text_makes_reading_expires_panic(text in "\\PC{0,20}") {
            let _ = expires_of(json!(text));
        }
    }
}
