//! `[route.canary]`: a second upstream of a route that receives a share of the clients.

use std::fmt;
use std::time::Duration;

use super::change::Pattern;
use http::header::HeaderName;

/// The canary of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// Index into [`Config::upstreams`](super::Config::upstreams); differs from the route's own upstream.
    pub upstream: usize,
    /// The initial share of new clients.
    pub percent: Percent,
    /// Requests that match any of these go to the canary regardless of its share.
    pub matches: Vec<CanaryMatch>,
    /// `None`: only the operator changes the share.
    pub auto: Option<CanaryAuto>,
}

/// Conditions that must all hold; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryMatch(pub Vec<Condition>);

/// One condition on a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// At least one line of the header has such a value.
    Header {
        name: HeaderName,
        value: ValueTest,
    },
    /// At least one cookie of this name has such a value.
    Cookie {
        name: String,
        value: ValueTest,
    },
    /// The session belongs to one of these users. The user is found by `session.user`.
    User(Vec<String>),
    /// A proxy in front of vestibule sends one of these countries (two capital letters) in this header.
    Country {
        header: HeaderName,
        codes: Vec<String>,
    },
    Device(Device),
}

/// A test on a text.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueTest {
    Is(String),
    /// Anchored at both ends.
    Matches(Pattern),
}

/// The device class, derived from `User-Agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Mobile,
    Tablet,
    Desktop,
    Bot,
}

/// Automatic promotion and rollback.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryAuto {
    /// The shares after the initial one, ascending; the last is 100%.
    pub steps: Vec<Percent>,
    /// Minimum time at a share before the next step.
    pub hold: Duration,
    /// Maximum increase of the canary's error rate over the stable side: 0 to 1, absolute.
    pub max_error_increase: f64,
    /// Maximum increase of the canary's time to first byte: above 0, relative.
    pub max_latency_increase: f64,
    /// Maximum probability, over the canary's whole life, that a canary within both limits is rolled back:
    /// between 0 and 1.
    pub false_alarm: f64,
}

/// A share in hundredths of a percent, 0 to 10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

impl Percent {
    pub const NONE: Percent = Percent(0);
    pub const ALL: Percent = Percent(10_000);

    /// Rounds to hundredths of a percent. Returns `None` outside 0 to 100.
    pub fn new(percent: f64) -> Option<Self> {
        let fits = (0.0..=100.0).contains(&percent);
        fits.then(|| Percent((percent * 100.0).round() as u16))
    }

    /// From hundredths of a percent. Returns `None` above 10000.
    pub fn from_hundredths(hundredths: u16) -> Option<Self> {
        (hundredths <= Self::ALL.0).then_some(Percent(hundredths))
    }

    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// In percent, 0 to 100.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.value())
    }
}
