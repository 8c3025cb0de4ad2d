//! Identity headers: the header values made from a session. They are made once per look-up and cached with
//! the session.

use std::fmt::Debug;

use http::HeaderValue;
use http::header::HeaderName;

use super::Contents;

/// A value of the session cannot be sent as a header. This is an error, because the request must not be
/// forwarded without the user's identity or with a part of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the session's value for {header} cannot be a header: {reason}")]
pub struct IdentityError {
    pub header: HeaderName,
    pub reason: &'static str,
}

/// One value per header, in the order of the [`IdentityMapper`] that made them. `None`: the session has no
/// value for that header.
pub type IdentityHeaders = Result<Box<[Option<HeaderValue>]>, Box<IdentityError>>;

/// Makes identity headers from sessions.
pub trait IdentityMapper: Debug + Send + Sync {
    /// Identifies the rules. Two mappers return the same id exactly if they make the same headers of every
    /// session.
    fn ruleset_id(&self) -> u64;

    /// Returns the identity headers for a session with these contents.
    fn headers(&self, contents: &Contents) -> IdentityHeaders;
}
