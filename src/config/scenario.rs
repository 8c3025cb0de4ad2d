//! The model of a scenario file, which describes the users of a load test. `config/scenarios/dify-chat.toml`
//! documents every key.

use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode};

use super::canary::Percent;
use super::capture::Capture;
use super::staging::Staging;
use super::template::Template;

/// The users, their actions, and the duration of a load test.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    /// Users arrive and log in during this time. Their actions in it are not counted.
    pub warm_up: Duration,
    /// How long actions are counted; greater than zero.
    pub duration: Duration,
    /// Timeout of a connect, and of the wait for the next byte of a response; greater than zero.
    pub timeout: Duration,
    /// Whether a user's connection is reused.
    pub keep_alive: bool,
    /// The response header that names the instance.
    pub instance_header: Option<HeaderName>,
    /// The response header of a login that names the login.
    pub login_header: Option<HeaderName>,
    pub users: Users,
    pub arrival: Arrival,
    /// `None`: users do not log in.
    pub session: Option<Login>,
    /// At least one.
    pub actions: Vec<Action>,
    /// Settings for comparisons.
    pub staging: Staging,
}

/// The simulated users.
#[derive(Debug, Clone, PartialEq)]
pub struct Users {
    /// At least 1.
    pub count: u32,
    /// Think time before each action in the closed model. `None`: no think time.
    pub think: Option<Think>,
    pub hot: Option<Hot>,
}

/// A lognormal distribution of think times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Think {
    pub median: Duration,
    /// Not shorter than the median.
    pub p95: Duration,
}

/// Users who are more active than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hot {
    pub share: Percent,
    /// How many times as often they act; at least 1.
    pub times: u32,
}

/// The arrival model of actions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// Closed model: each user acts after its think time.
    Closed,
    /// Open model: actions are due at a fixed rate, whether or not a user is free.
    Open {
        /// Actions per second; finite and greater than zero.
        rate: f64,
        spacing: Spacing,
    },
}

/// The spacing of actions in the open model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    Even,
    /// Independent of each other. The total over the whole time matches the rate exactly.
    Poisson,
}

/// How users log in and out, and how they react to a lost session.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    /// In sequence; at least one request.
    pub login: Vec<Ask>,
    /// In sequence. When empty, a user who logs out discards all cookies.
    pub logout: Vec<Ask>,
    /// Sent once at the end: is this user still logged in?
    pub check: Option<Ask>,
    pub on_lost: OnLost,
    /// Maximum login attempts per action; at least 1.
    pub login_attempts: u32,
    /// Share of actions that are followed by a logout and a new login.
    pub log_out: Percent,
}

/// A user's reaction to a lost session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLost {
    /// Logs in and repeats the action.
    Login,
    /// Leaves for good.
    Leave,
}

/// One kind of user action.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    pub name: String,
    /// Relative frequency among the actions; at least 1.
    pub weight: u32,
    /// Whether it needs a login.
    pub session: bool,
    /// In sequence; at least one.
    pub steps: Vec<Step>,
}

/// One request of an action, with its options.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub ask: Ask,
    /// Whether the response is an event stream (`text/event-stream`) that must contain at least one event.
    pub stream: bool,
    /// Sent once on a separate connection, when the stream has begun and all its captures are complete.
    pub meanwhile: Option<Ask>,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    pub method: Method,
    /// Path and query.
    pub path: Template,
    pub headers: Vec<(HeaderName, Template)>,
    pub body: AskBody,
    /// Expected statuses. Empty: 2xx and 3xx.
    pub expect: Vec<StatusCode>,
    /// Statuses that mean that the session is unknown.
    pub lost_on: Vec<StatusCode>,
    /// Text that the body must contain.
    pub contains: Option<String>,
    /// Values extracted from a successful response.
    pub captures: Vec<Capture>,
}

impl Ask {
    /// Whether a response with this status is successful.
    pub fn expects(&self, status: StatusCode) -> bool {
        match self.expect.as_slice() {
            [] => status.is_success() || status.is_redirection(),
            expected => expected.contains(&status),
        }
    }
}

/// The body of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum AskBody {
    Empty,
    /// Inserted values are JSON-escaped.
    Json(Template),
    Text(Template),
    /// Names and values of a form (`application/x-www-form-urlencoded`), in order.
    Form(Vec<(String, Template)>),
    /// A file of `bytes` bytes in the field `file` of a form (`multipart/form-data`), after `fields`.
    Upload {
        bytes: u64,
        fields: Vec<(String, Template)>,
    },
}
