//! `[route.canary]`: a second upstream of a route that gets a share of the clients.

use std::fmt;
use std::time::Duration;

use super::change::Pattern;
use http::header::HeaderName;

/// A second version behind a route.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// Index into [`Config::upstreams`](super::Config::upstreams); not the route's own.
    pub upstream: usize,
    /// Share of new clients, to begin with.
    pub percent: Percent,
    /// Requests that go to the canary whatever its share; any of them suffices.
    pub matches: Vec<CanaryMatch>,
    /// `None`: only the operator changes the share.
    pub auto: Option<CanaryAuto>,
}

/// Conditions that must all hold; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryMatch(pub Vec<Condition>);

/// One thing that is asked of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// Some line of the header has such a value.
    Header {
        name: HeaderName,
        value: ValueTest,
    },
    /// Some cookie of this name has such a value.
    Cookie {
        name: String,
        value: ValueTest,
    },
    /// The session is of one of these users, as `session.user` finds them.
    User(Vec<String>),
    /// A proxy in front of us says one of these countries (two capital letters) in this header.
    Country {
        header: HeaderName,
        codes: Vec<String>,
    },
    Device(Device),
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueTest {
    Is(String),
    /// Anchored at both ends.
    Matches(Pattern),
}

/// What a client says in `User-Agent` that it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Mobile,
    Tablet,
    Desktop,
    Bot,
}

/// Steps up and back without the operator.
#[derive(Debug, Clone, PartialEq)]
pub struct CanaryAuto {
    /// Shares that follow, ascending; the last is all of it.
    pub steps: Vec<Percent>,
    /// Shortest stay at a share before the next.
    pub hold: Duration,
    /// By how much the canary's share of failed requests may be greater: 0 to 1, absolute.
    pub max_error_increase: f64,
    /// By how much its time to the first byte may be longer: above 0, relative.
    pub max_latency_increase: f64,
    /// Greatest probability, over the canary's whole life, that one within both bounds is rolled back: between 0
    /// and 1.
    pub false_alarm: f64,
}

/// A share in hundredths of a percent, 0 to 10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

impl Percent {
    pub const NONE: Percent = Percent(0);
    pub const ALL: Percent = Percent(10_000);

    /// The nearest share that can be told; `None` outside 0 to 100.
    pub fn new(percent: f64) -> Option<Self> {
        let fits = (0.0..=100.0).contains(&percent);
        fits.then(|| Percent((percent * 100.0).round() as u16))
    }

    /// From hundredths of a percent; `None` above 10000.
    pub fn from_hundredths(hundredths: u16) -> Option<Self> {
        (hundredths <= Self::ALL.0).then_some(Percent(hundredths))
    }

    pub fn hundredths(self) -> u16 {
        self.0
    }

    /// 0 to 100.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.value())
    }
}
