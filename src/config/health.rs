//! How the health of instances is determined. Part of the model: validated, typed, defaults filled in.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

/// Active health checks of every instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    pub kind: CheckKind,
    /// Time between the starts of two checks of an instance, with a jitter of ±10 %.
    pub interval: Duration,
    /// Timeout of a whole check, from the connect to the last byte that is examined.
    pub timeout: Duration,
    /// Successful checks in a row until an instance is healthy; at least 1.
    pub rise: u32,
    /// Failed checks in a row until an instance is unhealthy; at least 1.
    pub fall: u32,
    /// How long new requests wait for a first successful check while no instance has passed one.
    pub unproven_after: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    Http(HttpCheck),
    /// A successful connect is enough.
    Tcp,
}

/// The request of an HTTP check and the expected response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    pub method: Method,
    /// Origin-form target; begins with `/`.
    pub path: String,
    /// The `Host` header. `None`: the instance's address.
    pub host: Option<HeaderValue>,
    pub status: StatusSet,
    /// Text that the beginning of the body must contain. `None`: any body.
    pub body: Option<String>,
}

/// A set of status codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSet(pub Vec<RangeInclusive<u16>>);

impl StatusSet {
    pub fn contains(&self, status: StatusCode) -> bool {
        self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

/// Passive health checks: when an instance is ejected because of its responses to requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlier {
    /// Consecutive failures that eject, at least 1. `None`: this criterion is off.
    pub consecutive: Option<u32>,
    /// Percent of failed requests within `window` that ejects, 1 to 100. `None`: this criterion is off.
    pub error_rate: Option<u8>,
    /// Ejects an instance whose typical time to the response head is this many times that of the others; at
    /// least 2. `None`: this criterion is off.
    pub latency: Option<u32>,
    /// Whether a 500 that is not the application's own JSON counts as a failure, as 502, 503 and 504 do.
    pub internal_errors: bool,
    /// The time window of the error rate and the latency.
    pub window: Duration,
    /// Minimum requests within the window for a decision. At least 1.
    pub min_requests: u64,
    /// Duration of the first ejection; it doubles with each further ejection.
    pub eject: Duration,
    /// Maximum duration of an ejection. After serving for this long, the instance's next ejection starts at
    /// `eject` again.
    pub max_eject: Duration,
    /// Maximum percent of instances ejected at a time. With two or more instances one may always be ejected.
    pub max_ejected: u8,
}

impl Outlier {
    /// Used when the operator configures nothing: ejects only after consecutive failures at the connection or
    /// gateway level. The application's own 500 responses do not count, because a single client could cause
    /// them.
    pub const CAUTIOUS: Outlier = Outlier { internal_errors: false, ..Outlier::DEFAULT };

    /// The defaults of the `outlier` table.
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

    /// Whether a criterion that needs the time window is on.
    pub fn has_window(&self) -> bool {
        self.error_rate.is_some() || self.latency.is_some()
    }

    pub fn is_on(&self) -> bool {
        self.consecutive.is_some() || self.has_window()
    }

    /// How many of `instances` may be ejected at a time.
    pub fn most_ejected(&self, instances: usize) -> usize {
        let share = instances * usize::from(self.max_ejected) / 100;
        if instances > 1 { share.max(1) } else { 0 }
    }
}
