//! How the health of instances is judged. Part of the model: validated, typed, defaults filled in.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

/// Active checks of every instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: CheckKind,
    /// Between the beginnings of two checks of an instance, give or take a tenth.
    pub interval: Duration,
    /// For a whole check, from connecting to the last byte that is looked at.
    pub timeout: Duration,
    /// At least 1.
    pub rise: u32,
    /// At least 1.
    pub fall: u32,
    /// How long new requests wait for a first good check when no instance has had one.
    pub unproven_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    Http(HttpCheck),
    /// That a connection can be made is enough.
    Tcp,
}

/// What is asked, and which answer is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    pub method: Method,
    /// Origin-form target, begins with `/`.
    pub path: String,
    /// `None`: the instance's address.
    pub host: Option<HeaderValue>,
    pub status: StatusSet,
    /// What the beginning of the body must hold; `None`: anything.
    pub body: Option<String>,
}

/// A set of statuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(pub Vec<RangeInclusive<u16>>);

impl StatusSet {
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

/// When an instance is taken out for what requests meet there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row, at least 1; `None`: any number.
    pub consecutive: Option<u32>,
    /// Percent of the requests within `window` that fail, 1 to 100; `None`: any share.
    pub error_rate: Option<u8>,
    /// How many times as long as the others it may typically take to the head of an answer, at least 2; `None`: any
    /// time.
    pub latency: Option<u32>,
    /// Whether a 500 that is not the application's own JSON counts as failure, as 502, 503 and 504 do.
    pub internal_errors: bool,
    /// What the error rate and the latency are taken of.
    pub window: Duration,
    /// Fewer requests within the window say nothing. At least 1.
    pub min_requests: u64,
    /// For how long the first time; twice as long each further time.
    pub eject: Duration,
    /// The longest time. An instance that serves for so long afterwards begins anew.
    pub max_eject: Duration,
    /// Percent of the instances that are out at a time; of several one may always be.
    pub max_ejected: u8,
}

impl Outlier {
    /// What applies when nothing is said: an instance that lets one request after the other fail at the door is
    /// left alone. An application's own failures are no reason, as one client could bring them about.
    pub const CAUTIOUS: Outlier = Outlier { internal_errors: false, ..Outlier::DEFAULT };

    /// Of the table.
    pub const DEFAULT: Outlier = Outlier {
        consecutive: Some(5),
        error_rate: None,
        latency: None,
        internal_errors: true,
        window: Duration::from_secs(10),
        min_requests: 20,
        eject: Duration::from_secs(30),
        max_eject: Duration::from_secs(300),
        max_ejected: 50,
    };

    /// Whether anything is looked at that takes time to show.
    pub fn has_window(&self) -> bool {
        self.error_rate.is_some() || self.latency.is_some()
    }

    pub fn is_on(&self) -> bool {
        self.consecutive.is_some() || self.has_window()
    }

    /// How many of `instances` may be out at a time.
    pub fn most_ejected(&self, instances: usize) -> usize {
        let share = instances * usize::from(self.max_ejected) / 100;
        if instances > 1 { share.max(1) } else { 0 }
    }
}
