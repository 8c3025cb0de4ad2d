//! Retries and hedging. Part of the model: validated, typed, defaults filled in.

use std::time::Duration;

use http::{Method, StatusCode};

/// When a request is retried on another instance. A request that was provably not sent is always retried;
/// `on`, `budget` and `never` apply to requests that an instance may have received. Those are retried only
/// when they are idempotent (RFC 9110 section 9.2.2) and have no body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Maximum number of instances that may receive a request, at least 1. Instances that could not be
    /// connected do not count.
    pub attempts: u32,
    pub on: RetryOn,
    pub budget: RetryBudget,
    pub never: Vec<NeverAgain>,
    /// Timeout of one attempt until the response head, while another instance can be tried instead.
    pub per_try_timeout: Option<Duration>,
    /// From the first attempt to the response head, including the wait for a slot.
    pub total_timeout: Option<Duration>,
}

/// Which outcomes are retried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryOn {
    /// The connection broke before the response began.
    pub broken: bool,
    /// The response did not begin in time.
    pub timeout: bool,
    /// Responses with these statuses.
    pub statuses: Vec<StatusCode>,
}

/// Limits retries, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudget {
    /// Percent of the requests of the last seconds, 0..=100.
    pub percent: u32,
    /// Retries per second that are always allowed.
    pub per_second: u32,
}

/// Requests that are never retried, although their method is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeverAgain {
    /// `None`: any. `GET` includes `HEAD`, because applications run the same code for both.
    pub method: Option<Method>,
    /// Path prefix in whole segments, without trailing `/`. `*` matches any one segment.
    pub path: String,
}

/// Hedging: a second attempt in parallel with a slow first one, for `GET` and `HEAD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// How long to wait for the first attempt's response head before the second attempt.
    pub after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            attempts: 2,
            on: RetryOn::default(),
            budget: RetryBudget { percent: 20, per_second: 10 },
            never: Vec::new(),
            per_try_timeout: None,
            total_timeout: None,
        }
    }
}

impl Default for RetryOn {
    fn default() -> Self {
        let statuses =
            vec![StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        RetryOn { broken: true, timeout: true, statuses }
    }
}

impl RetryOn {
    pub fn is_empty(&self) -> bool {
        !self.broken && !self.timeout && self.statuses.is_empty()
    }
}

impl NeverAgain {
    /// Whether the rule covers a request with this method and decoded path.
    pub fn covers(&self, method: &Method, path: &str) -> bool {
        let is_meant = |own: &Method| own == method || (*own == Method::GET && *method == Method::HEAD);
        self.method.as_ref().is_none_or(is_meant) && begins_with(path, &self.path)
    }
}

fn begins_with(path: &str, beginning: &str) -> bool {
    let mut segments = path.split('/');
    beginning
        .split('/')
        .all(|wanted| segments.next().is_some_and(|segment| wanted == "*" || wanted == segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(method: Option<Method>, beginning: &str, asked: &Method, path: &str) -> bool {
        NeverAgain { method, path: beginning.to_owned() }.covers(asked, path)
    }

    #[test]
    fn a_beginning_is_of_whole_segments() {
        for (beginning, path, expected) in [
            ("/api/passport", "/api/passport", true),
            ("/api/passport", "/api/passport/x", true),
            ("/api/passport", "/api/passports", false),
            ("/api/passport", "/api", false),
            ("", "/", true),
            ("", "/anything", true),
            ("/messages/*/more-like-this", "/messages/7/more-like-this", true),
            ("/messages/*/more-like-this", "/messages/7/8/more-like-this", false),
        ] {
            assert_eq!(covers(None, beginning, &Method::GET, path), expected, "{beginning} {path}");
        }
    }

    #[test]
    fn get_stands_for_head_and_nothing_for_everything() {
        assert!(covers(Some(Method::GET), "/a", &Method::HEAD, "/a"));
        assert!(!covers(Some(Method::HEAD), "/a", &Method::GET, "/a"));
        assert!(!covers(Some(Method::GET), "/a", &Method::DELETE, "/a"));
        assert!(covers(None, "/a", &Method::DELETE, "/a"));
    }
}
