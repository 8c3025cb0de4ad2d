//! The side of a client: drawn once, then stored in a sealed cookie.

use http::{HeaderMap, HeaderValue};

use super::Variant;
use crate::config::{Affinity, Percent};
use crate::secret::{RandomError, digest};
use crate::traffic_split::{Keys, TrafficSplit};

const COOKIE_PURPOSE: &str = "vestibule canary cookie v1";
const DRAW_PURPOSE: &str = "vestibule canary draw v1";

/// The keys shared by all canaries. Fails if no secret is configured and the system's random number generator
/// fails.
pub(super) fn keys(config: &Affinity) -> Result<Keys, RandomError> {
    Keys::new(config, COOKIE_PURPOSE, DRAW_PURPOSE)
}

/// The side assigned to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) side: Variant,
    /// The canary's share when the side was drawn.
    pub(super) at: Percent,
}

/// Assigns sides for one route.
#[derive(Debug)]
pub(super) struct Split(TrafficSplit);

impl Split {
    pub(super) fn new(keys: Keys, config: &Affinity, route: &str, stable: &str, canary: &str) -> Self {
        let mark: String = digest(route).chars().take(8).collect();
        let cookie = format!("{}-canary-{mark}", config.cookie);
        let context = format!("{route}\n{stable}\n{canary}");
        Split(TrafficSplit::new(keys, cookie, context, canary.to_owned(), config))
    }

    /// Name of the cookie that stores a client's side.
    pub(super) fn cookie(&self) -> &str {
        self.0.cookie()
    }

    /// The content of the client's cookie, and whether it should be renewed because half of its lifetime is
    /// over. `None` if there is no valid cookie of this canary.
    pub(super) fn given(&self, headers: &HeaderMap) -> Option<(Given, bool)> {
        self.0.given(headers, |content| {
            let side = if content & 1 == 1 { Variant::Canary } else { Variant::Stable };
            let at = u16::try_from(content >> 1).ok().and_then(Percent::from_hundredths)?;
            Some(Given { side, at })
        })
    }

    /// The `Set-Cookie` value that stores the side. `None` if the system's random number generator fails; the
    /// client may be assigned another side then.
    pub(super) fn set_cookie(&self, given: Given, https: bool) -> Option<HeaderValue> {
        let content = u64::from(given.at.hundredths()) << 1 | u64::from(given.side == Variant::Canary);
        self.0.set_cookie(content, https)
    }

    /// Draws a side for a new client. At the same share a session always gets the same side. A session that
    /// was drawn for the canary stays there at any greater share. Without a session the side is random.
    pub(super) fn draw(&self, session: Option<&[u8]>, at: Percent) -> Given {
        let side = if self.0.bucket(session) < at.hundredths() { Variant::Canary } else { Variant::Stable };
        Given { side, at }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::COOKIE;
    use proptest::prelude::*;

    use super::*;
    use crate::config::CookieAttributes;
    use crate::secret::Secret;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn split(secret: Option<&str>, max_age: u64, canary: &str) -> Split {
        let secret = secret.map(|text| Secret::new(text.as_bytes().to_vec()));
        let (cookie, attributes) = ("tie".into(), CookieAttributes::default());
        let config = Affinity { cookie, attributes, max_age: Duration::from_secs(max_age), secret };
        Split::new(keys(&config).unwrap(), &config, "/", "app", canary)
    }

    #[test]
    fn golden_a_side_of_any_version_is_read() {
        let split = split(Some(SECRET), 20_000_000_000, "app-v2");
        assert_eq!(split.cookie(), "tie-canary-8a5edab2");
        let given = Given { side: Variant::Canary, at: percent(10.0) };
        assert_eq!(
            split.given(&request(
                &split,
                "AfvVKvLBMyMUjTQApqS_SeSfRCikg-BHKwoFBPaHTJ5rm-BrVMl3nfEmLW3p_WoU6ExTHLI"
            )),
            Some((given, false))
        );
        let drawn = ["a", "b", "c", "d", "e", "f"].map(|session| split.0.bucket(Some(session.as_bytes())));
        assert_eq!(drawn, [4891, 6770, 4689, 3588, 2505, 9942]);
    }

    fn percent(value: f64) -> Percent {
        Percent::new(value).unwrap()
    }

    fn request(split: &Split, value: &str) -> HeaderMap {
        let line = format!("a=1; {}={value}", split.cookie());
        [(COOKIE, HeaderValue::try_from(line).unwrap())].into_iter().collect()
    }

    fn value(split: &Split, given: Given) -> String {
        let cookie = split.set_cookie(given, true).unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.ends_with("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
        cookie.split(['=', ';']).nth(1).unwrap().to_owned()
    }

    fn on_canary(split: &Split, sessions: usize, at: Percent) -> usize {
        let drawn = (0..sessions)
            .filter(|n| split.draw(Some(format!("session-{n}").as_bytes()), at).side == Variant::Canary);
        drawn.count()
    }

    #[test]
    fn ten_percent_of_sessions_are_ten_percent() {
        let split = split(Some(SECRET), 60, "app-v2");
        let found = on_canary(&split, 20_000, percent(10.0));
        assert!((1_800..=2_200).contains(&found), "{found}");
        let by_chance =
            (0..20_000).filter(|_| split.draw(None, percent(10.0)).side == Variant::Canary).count();
        assert!((1_800..=2_200).contains(&by_chance), "{by_chance}");
        assert_eq!(on_canary(&split, 1_000, Percent::NONE), 0);
        assert_eq!(on_canary(&split, 1_000, Percent::ALL), 1_000);
    }

    #[test]
    fn a_side_is_read_back_by_every_process_with_the_secret_and_by_no_other() {
        let (one, other) = (split(Some(SECRET), 60, "app-v2"), split(Some(SECRET), 60, "app-v2"));
        for side in [Variant::Stable, Variant::Canary] {
            let given = Given { side, at: percent(12.5) };
            let value = value(&one, given);
            assert_eq!(other.given(&request(&other, &value)), Some((given, false)));
            assert_eq!(split(None, 60, "app-v2").given(&request(&one, &value)), None);
        }
    }

    #[test]
    fn another_canarys_cookie_and_one_that_lives_too_long_say_nothing() {
        let one = split(Some(SECRET), 60, "app-v2");
        let value = value(&one, Given { side: Variant::Canary, at: percent(10.0) });
        assert_eq!(split(Some(SECRET), 60, "app-v3").given(&request(&one, &value)), None);
        assert_eq!(split(Some(SECRET), 10, "app-v2").given(&request(&one, &value)), None);
    }

    proptest! {
        #[test]
        fn a_greater_share_takes_no_session_from_the_canary(
            session in proptest::collection::vec(any::<u8>(), 0..40), a in 0.0..100.0, b in 0.0..100.0,
        ) {
            let split = split(Some(SECRET), 60, "app-v2");
            let (less, more) = (f64::min(a, b), f64::max(a, b));
            if split.draw(Some(&session), percent(less)).side == Variant::Canary {
                prop_assert_eq!(split.draw(Some(&session), percent(more)).side, Variant::Canary);
            }
        }

        #[test]
        fn nothing_but_the_cookie_itself_is_believed(place in 0..70_usize, byte in b'0'..=b'z') {
            let split = split(Some(SECRET), 60, "app-v2");
            let good = value(&split, Given { side: Variant::Stable, at: percent(10.0) });
            let mut bytes = good.clone().into_bytes();
            let place = place % bytes.len();
            bytes[place] = if byte == b';' { b'x' } else { byte };
            let altered = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(split.given(&request(&split, &altered)).is_some(), altered == good);
        }
    }
}
