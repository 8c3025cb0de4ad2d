//! Assigns clients to cohorts while several values of `session.mode` are compared on live traffic.
//!
//! A client is assigned once and keeps its cohort in a sealed cookie, so that neither a login nor a change of
//! the shares moves it. A client without that cookie is assigned by a keyed hash of its session id, with the
//! same result in every process with the same `affinity.secret`. A client without a session id is assigned at
//! random.

use http::{HeaderMap, HeaderValue};

use crate::config::{Affinity, Mode, Shares};
use crate::secret::RandomError;
use crate::traffic_split::{Keys, TrafficSplit};

const COOKIE_PURPOSE: &str = "vestibule cohort cookie v1";
const DRAW_PURPOSE: &str = "vestibule cohort draw v1";

/// The cohorts of a comparison.
#[derive(Debug)]
pub struct Cohorts {
    lots: TrafficSplit,
    shares: Shares,
}

/// The cohort of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub mode: Mode,
    /// Whether the response must set the cohort cookie.
    pub tell: bool,
}

impl Cohorts {
    /// Fails if the system has no random numbers, which are needed only where no secret is configured.
    pub fn new(config: &Affinity, shares: Shares) -> Result<Self, RandomError> {
        let keys = Keys::new(config, COOKIE_PURPOSE, DRAW_PURPOSE)?;
        // Cannot collide with an affinity cookie: those have a `-` after the configured name.
        let cookie = format!("{}_cohort", config.cookie);
        let subject = "cohort".to_owned();
        Ok(Cohorts { lots: TrafficSplit::new(keys, cookie, subject.clone(), subject, config), shares })
    }

    /// Name of the cohort cookie.
    pub fn cookie(&self) -> &str {
        self.lots.cookie()
    }

    /// The shares by which new clients are assigned.
    pub fn shares(&self) -> Shares {
        self.shares
    }

    /// Returns the cohort of a request with these headers. `session` is the session id in the request,
    /// whether or not the session exists. A cohort in the cookie that is no longer compared is ignored, and
    /// the client is assigned anew.
    pub fn choose(&self, headers: &HeaderMap, session: Option<&[u8]>) -> Choice {
        match self.lots.given(headers, |content| self.compared(content)) {
            Some((mode, tell)) => Choice { mode, tell },
            None => Choice { mode: self.shares.mode_at(self.lots.bucket(session)), tell: true },
        }
    }

    /// Returns the `Set-Cookie` value for `choice`. `None` if the cookie need not be set, or if the system
    /// has no random numbers.
    pub fn set_cookie(&self, choice: Choice, https: bool) -> Option<HeaderValue> {
        choice.tell.then(|| self.lots.set_cookie(choice.mode as u64, https))?
    }

    fn compared(&self, content: u64) -> Option<Mode> {
        let mode = *Mode::ALL.get(usize::try_from(content).ok()?)?;
        self.shares.of(mode).map(|_| mode)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::header::COOKIE;
    use proptest::prelude::*;

    use super::*;
    use crate::config::{CookieAttributes, Percent};
    use crate::secret::Secret;

    fn cohorts(shares: [Option<f64>; 3]) -> Cohorts {
        let secret = Secret::new(b"0123456789abcdef0123456789abcdef".to_vec());
        let config = Affinity {
            cookie: "tie".into(),
            attributes: CookieAttributes::default(),
            max_age: Duration::from_secs(60),
            secret: Some(secret),
        };
        let shares = Shares::new(shares.map(|share| share.and_then(Percent::new))).unwrap();
        Cohorts::new(&config, shares).unwrap()
    }

    #[test]
    fn golden_a_cohort_of_any_version_is_read() {
        let config = Affinity {
            cookie: "tie".into(),
            attributes: CookieAttributes::default(),
            max_age: Duration::from_secs(20_000_000_000),
            secret: Some(Secret::new(b"0123456789abcdef0123456789abcdef".to_vec())),
        };
        let shares =
            Shares::new([Some(50.0), Some(25.0), Some(25.0)].map(|share| share.and_then(Percent::new)));
        let cohorts = Cohorts::new(&config, shares.unwrap()).unwrap();
        let headers = [(
            COOKIE,
            HeaderValue::from_static(
                "tie_cohort=Adn4UrSTejIDG4xmOBilgraDFI4QZuX287QTDwvypbKDkqXaaZ__xamKW15kuuG9VvdfzaQ",
            ),
        )]
        .into_iter()
        .collect();
        assert_eq!(cohorts.choose(&headers, None), Choice { mode: Mode::Sticky, tell: false });
        let drawn =
            ["a", "b", "c", "d", "e", "f"].map(|session| cohorts.lots.bucket(Some(session.as_bytes())));
        assert_eq!(drawn, [3605, 6375, 7832, 9160, 5834, 6830]);
    }

    fn drawn(cohorts: &Cohorts, session: usize) -> Mode {
        let choice = cohorts.choose(&HeaderMap::new(), Some(format!("session-{session}").as_bytes()));
        assert!(choice.tell);
        choice.mode
    }

    fn counts(shares: [Option<f64>; 3]) -> [usize; 3] {
        let cohorts = cohorts(shares);
        let modes: Vec<_> = (0..10_000).map(|session| drawn(&cohorts, session)).collect();
        Mode::ALL.map(|mode| modes.iter().filter(|drawn| **drawn == mode).count())
    }

    fn told(cohorts: &Cohorts, mode: Mode) -> HeaderMap {
        let cookie = cohorts.set_cookie(Choice { mode, tell: true }, false).unwrap();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        [(COOKIE, HeaderValue::try_from(pair).unwrap())].into_iter().collect()
    }

    #[test]
    fn ten_thousand_sessions_are_split_within_one_percent_of_the_shares() {
        for shares in [[50, 50, 0], [10, 90, 0], [33, 33, 34]] {
            let counted = counts(shares.map(|share| Some(f64::from(share))));
            for (count, share) in counted.into_iter().zip(shares) {
                assert!(count.abs_diff(share as usize * 100) <= 100, "{counted:?} for {shares:?}");
            }
        }
    }

    #[test]
    fn what_a_client_was_given_outlives_login_and_shares() {
        let (before, after) =
            (cohorts([Some(50.0), Some(50.0), None]), cohorts([Some(1.0), Some(98.0), Some(1.0)]));
        for mode in [Mode::Shared, Mode::Sticky] {
            let headers = told(&before, mode);
            for session in (0..50).map(|n| format!("login-{n}")) {
                assert_eq!(after.choose(&headers, Some(session.as_bytes())), Choice { mode, tell: false });
            }
        }
    }

    #[test]
    fn a_cohort_that_is_not_compared_any_more_is_drawn_anew() {
        let (before, after) =
            (cohorts([None, Some(50.0), Some(50.0)]), cohorts([Some(50.0), Some(50.0), None]));
        let choice = after.choose(&told(&before, Mode::Local), Some(b"session-1"));
        assert_eq!(choice, Choice { mode: drawn(&after, 1), tell: true });
    }

    #[test]
    fn without_the_cookie_another_share_moves_no_more_sessions_than_it_must() {
        let (before, after) =
            (cohorts([Some(50.0), Some(50.0), None]), cohorts([Some(60.0), Some(40.0), None]));
        let moved = |session: &usize| drawn(&before, *session) != drawn(&after, *session);
        let moved: Vec<_> = (0..10_000).filter(moved).collect();
        assert!(moved.len().abs_diff(1_000) <= 100, "{}", moved.len());
        assert!(moved.iter().all(|session| drawn(&after, *session) == Mode::Shared));
    }

    proptest! {
        #[test]
        fn whatever_a_client_sends_it_is_given_a_compared_cohort(value in "[ -~]{0,80}") {
            let cohorts = cohorts([Some(50.0), Some(50.0), None]);
            let Ok(line) = HeaderValue::try_from(format!("tie_cohort={value}")) else { return Ok(()) };
            let choice = cohorts.choose(&[(COOKIE, line)].into_iter().collect(), None);
            prop_assert!(choice.tell && choice.mode != Mode::Local);
        }
    }
}
