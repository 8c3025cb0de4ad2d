//! Why an action failed.

use std::error::Error;
use std::fmt;

use http::StatusCode;

/// What failed; its text is what the failures of a result are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// No connection could be made.
    Connect,
    /// TLS or HTTP/2 could not be agreed on.
    Handshake,
    /// No byte of an answer for the scenario's `timeout`, or no connection.
    Timeout,
    /// The connection ended before the answer did.
    Cut,
    /// What came is not HTTP, or the request could not be made of what was filled in.
    Invalid,
    /// An unexpected status, with what a problem document (RFC 9457) says of it.
    Status(StatusCode, Option<Box<str>>),
    /// The body does not hold what it should, or the stream no event.
    UnexpectedBody,
    /// A good answer gives no value of this name, for that reason.
    NoValue(Box<str>, Lack),
    /// The request needs a value that the user has not got from any answer.
    NoValueYet(Box<str>),
    /// The request of this number in an action of several, from 2.
    Behind(usize, Box<Failure>),
    /// The request that is sent while a stream runs.
    Meanwhile(Box<Failure>),
    /// The session was lost, and its user left or had no login left to try.
    SessionLost,
    /// The login that the action needed.
    Login(Box<Failure>),
    /// Still waited for a free user when the load was over.
    NotBegun,
    /// Still under way when the load was over.
    Unfinished,
}

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    /// It is not where it should be, or it is neither text, number nor boolean.
    Absent,
    /// It is longer than what is kept.
    TooLong,
    /// What it is looked for in is longer than what is held.
    TextTooLong,
}

/// Why there is no connection: what is counted, and what lay behind it for a person to read.
#[derive(Debug)]
pub(super) struct NoConnection {
    pub(super) failure: Failure,
    pub(super) cause: String,
}

impl NoConnection {
    /// `failure` with `error` and everything behind it.
    pub(super) fn new(failure: Failure, error: &dyn Error) -> Self {
        let mut cause = error.to_string();
        let mut behind = error.source();
        while let Some(error) = behind {
            let told = error.to_string();
            // Many errors tell what lies behind them already.
            if !cause.contains(&told) {
                cause = format!("{cause}: {told}");
            }
            behind = error.source();
        }
        NoConnection { failure, cause }
    }
}

impl From<NoConnection> for Failure {
    fn from(none: NoConnection) -> Self {
        none.failure
    }
}

impl Failure {
    /// The same without an application's own words.
    pub(super) fn plain(self) -> Failure {
        match self {
            Failure::Status(status, _) => Failure::Status(status, None),
            Failure::Login(failure) => Failure::Login(Box::new(failure.plain())),
            Failure::Behind(number, failure) => Failure::Behind(number, Box::new(failure.plain())),
            Failure::Meanwhile(failure) => Failure::Meanwhile(Box::new(failure.plain())),
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Connect => "connect",
            Failure::Handshake => "handshake",
            Failure::Timeout => "timeout",
            Failure::Cut => "cut",
            Failure::Invalid => "invalid",
            Failure::Status(status, None) => return write!(f, "status {}", status.as_u16()),
            Failure::Status(status, Some(why)) => return write!(f, "status {}: {why}", status.as_u16()),
            Failure::UnexpectedBody => "unexpected body",
            Failure::NoValue(name, Lack::Absent) => return write!(f, "no value for {name} in the answer"),
            Failure::NoValue(name, Lack::TooLong) => {
                return write!(f, "the value for {name} is longer than 8 KiB");
            }
            Failure::NoValue(name, Lack::TextTooLong) => {
                return write!(f, "the answer that {name} is looked for in is longer than 1 MiB");
            }
            Failure::NoValueYet(name) => return write!(f, "no value for {name} yet"),
            Failure::Behind(number, failure) => return write!(f, "request {number}: {failure}"),
            Failure::Meanwhile(failure) => return write!(f, "meanwhile: {failure}"),
            Failure::SessionLost => "session lost",
            Failure::Login(failure) => return write!(f, "login: {failure}"),
            Failure::NotBegun => "not begun",
            Failure::Unfinished => "unfinished",
        })
    }
}
