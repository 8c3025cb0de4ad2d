//! How a session is told to the upstream: as header values, made when it is looked up and kept with it.

use std::fmt::Debug;

use http::HeaderValue;
use http::header::HeaderName;

use super::Contents;

/// A session holds a value that cannot be sent as a header. The request must not go on as somebody else
/// or nobody, so this is an error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the session's value for {header} cannot be a header: {reason}")]
pub struct IdentityError {
    pub header: HeaderName,
    pub reason: &'static str,
}

/// The values of headers that whoever made them knows; `None`: the session says nothing for one.
pub type IdentityHeaders = Result<Box<[Option<HeaderValue>]>, Box<IdentityError>>;

/// Makes descriptions.
pub trait IdentityMapper: Debug + Send + Sync {
    /// Equal for those who describe every session alike, and only for them.
    fn ruleset_id(&self) -> u64;

    /// What the upstream is to be told of a session with these contents.
    fn headers(&self, contents: &Contents) -> IdentityHeaders;
}
