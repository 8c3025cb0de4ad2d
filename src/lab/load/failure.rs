//! Failures of actions.

use std::error::Error;
use std::fmt;

use http::StatusCode;

/// A failure. Its text is the key by which a result counts failures.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failure {
    /// The connect failed.
    Connect,
    /// The TLS or HTTP/2 handshake failed.
    Handshake,
    /// No byte of a response within the scenario's `timeout`, or no connection.
    Timeout,
    /// The connection ended before the response did.
    Cut,
    /// The response is not valid HTTP, or the filled-in request is invalid.
    Invalid,
    /// An unexpected status, with the text of a problem document (RFC 9457).
    Status(StatusCode, Option<Box<str>>),
    /// The body lacks the expected text, or the stream has no event.
    UnexpectedBody,
    /// A successful response lacks the value of this name, for this reason.
    NoValue(Box<str>, Lack),
    /// The request needs a value that the user has not captured yet.
    NoValueYet(Box<str>),
    /// The failure of a later request of an action; the number counts from 2.
    Behind(usize, Box<Failure>),
    /// The failure of the request that is sent during a stream.
    Meanwhile(Box<Failure>),
    /// The session was lost, and the user left or had no login attempt left.
    SessionLost,
    /// The failure of a login that the action needed.
    Login(Box<Failure>),
    /// The action was still queued for a free user when the load was over.
    NotBegun,
    /// The action was still in flight when the load was over.
    Unfinished,
}

/// Why a value is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lack {
    /// It is absent, or neither text, number nor boolean.
    Absent,
    /// It exceeds the maximum length of a value.
    TooLong,
    /// The text to search exceeds the buffer limit.
    TextTooLong,
}

/// A failed connect: the failure to count, and its cause in words.
#[derive(Debug)]
pub(super) struct NoConnection {
    pub(super) failure: Failure,
    pub(super) cause: String,
}

impl NoConnection {
    /// `failure`, with the text of `error` and its sources.
    pub(super) fn new(failure: Failure, error: &dyn Error) -> Self {
        let mut cause = error.to_string();
        let mut behind = error.source();
        while let Some(error) = behind {
            let told = error.to_string();
            // Many errors already include the text of their source.
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
    /// The same failure without the application's own text.
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
