//! Values that a scenario's users extract from responses.

use http::header::HeaderName;
use regex::bytes::Regex;

/// A value extracted from a response. It replaces `{name}` in later requests of the same user.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// A letter, then letters, digits, `_` and `-`; at most 40 characters.
    pub name: String,
    pub from: Source,
}

/// Where in a response the value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A JSON pointer (RFC 6901), not empty: into the body, or into the first event of a stream that contains
    /// it.
    Pointer(String),
    /// The first header of this name.
    Header(HeaderName),
    /// A cookie that the response sets.
    Cookie(String),
    /// The first match in the body or in an event of a stream: its first group, or the whole match without a
    /// group.
    Pattern(BodyPattern),
}

/// A regular expression for bodies. Two are equal when their texts are equal. Character classes are ASCII
/// only.
#[derive(Debug, Clone)]
pub struct BodyPattern(pub Regex);

impl PartialEq for BodyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
