//! What users do: the model of a scenario's file. Every key and its meaning are in `config/scenarios/dify-chat.toml`.

use std::time::Duration;

use http::header::HeaderName;
use http::{Method, StatusCode};

use super::canary::Percent;
use super::capture::Capture;
use super::staging::Staging;
use super::template::Template;

/// Users, what they do, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    /// Users come and log in over this time; what they do in it is not counted.
    pub warm_up: Duration,
    /// How long actions are counted; greater than zero.
    pub duration: Duration,
    /// Longest time without a byte of an answer, and for connecting; greater than zero.
    pub timeout: Duration,
    /// Whether a user's connection is used again.
    pub keep_alive: bool,
    /// The header of an answer that names the instance.
    pub instance_header: Option<HeaderName>,
    /// The header of a login's answer that names the login.
    pub login_header: Option<HeaderName>,
    pub users: Users,
    pub arrival: Arrival,
    /// `None`: nobody logs in.
    pub session: Option<Login>,
    /// At least one.
    pub actions: Vec<Action>,
    /// What a comparison reads.
    pub staging: Staging,
}

/// Who there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Users {
    /// At least 1.
    pub count: u32,
    /// Pause before each action in the closed model; `None`: none.
    pub think: Option<Think>,
    pub hot: Option<Hot>,
}

/// A lognormal distribution of pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Think {
    pub median: Duration,
    /// Not shorter than the median.
    pub p95: Duration,
}

/// Users who are busier than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hot {
    pub share: Percent,
    /// How many times as often they act; at least 1.
    pub times: u32,
}

/// What makes actions happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// Users act when they have thought.
    Closed,
    /// Actions are due whether or not anybody is free to do them.
    Open {
        /// Actions per second; finite and greater than zero.
        rate: f64,
        spacing: Spacing,
    },
}

/// How the actions of an open model follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spacing {
    Even,
    /// Independently of each other; over the whole time there are as many as the rate says.
    Poisson,
}

/// How users log in, and what they do without a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    /// One after the other; at least one.
    pub login: Vec<Ask>,
    /// Without any a user who logs out forgets all cookies.
    pub logout: Vec<Ask>,
    /// Asked once at the end: would this user still be logged in?
    pub check: Option<Ask>,
    pub on_lost: OnLost,
    /// Most logins that are tried for one action; at least 1.
    pub login_attempts: u32,
    /// How many of the actions are followed by a logout and a new login.
    pub log_out: Percent,
}

/// What a user does who has lost a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLost {
    /// Logs in and repeats the action.
    Login,
    /// Never comes back.
    Leave,
}

/// Something that users do.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    pub name: String,
    /// How often compared with the other actions; at least 1.
    pub weight: u32,
    /// Whether it needs a login.
    pub session: bool,
    /// One after the other, at least one.
    pub steps: Vec<Step>,
}

/// One request of an action, and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub ask: Ask,
    /// Whether the answer is a stream of events (`text/event-stream`) that must hold one at least.
    pub stream: bool,
    /// Asked once, on a connection of its own, when the stream has begun and given all that it is to give.
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
    /// Empty: 2xx and 3xx.
    pub expect: Vec<StatusCode>,
    /// Statuses that say that the session is not known.
    pub lost_on: Vec<StatusCode>,
    /// What the body must hold.
    pub contains: Option<String>,
    /// What is taken from a good answer.
    pub captures: Vec<Capture>,
}

impl Ask {
    /// Whether an answer of this status is a good one.
    pub fn expects(&self, status: StatusCode) -> bool {
        match self.expect.as_slice() {
            [] => status.is_success() || status.is_redirection(),
            expected => expected.contains(&status),
        }
    }
}

/// What is sent with a request.
#[derive(Debug, Clone, PartialEq)]
pub enum AskBody {
    Empty,
    /// What is filled in is escaped.
    Json(Template),
    Text(Template),
    /// Names and values of a form (`application/x-www-form-urlencoded`), in order.
    Form(Vec<(String, Template)>),
    /// A file of so many bytes in the field `file` of a form (`multipart/form-data`), behind these fields.
    Upload {
        bytes: u64,
        fields: Vec<(String, Template)>,
    },
}
