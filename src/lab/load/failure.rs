//! Why an action failed.

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
    Status(StatusCode),
    /// The body does not hold what it should, or the stream no event.
    UnexpectedBody,
    /// The session was lost, and its user left or had no login left to try.
    SessionLost,
    /// The login that the action needed.
    Login(Box<Failure>),
    /// Still waited for a free user when the load was over.
    NotBegun,
    /// Still under way when the load was over.
    Unfinished,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Connect => "connect",
            Failure::Handshake => "handshake",
            Failure::Timeout => "timeout",
            Failure::Cut => "cut",
            Failure::Invalid => "invalid",
            Failure::Status(status) => return write!(f, "status {}", status.as_u16()),
            Failure::UnexpectedBody => "unexpected body",
            Failure::SessionLost => "session lost",
            Failure::Login(failure) => return write!(f, "login: {failure}"),
            Failure::NotBegun => "not begun",
            Failure::Unfinished => "unfinished",
        })
    }
}
