//! What users of a scenario take from answers.

use http::header::HeaderName;
use regex::bytes::Regex;

/// A value that is taken from an answer, to be filled in for `{name}` in later requests of the same user.
#[derive(Debug, Clone, PartialEq)]
pub struct Capture {
    /// A letter, then letters, digits, `_` and `-`; at most 40.
    pub name: String,
    pub from: Source,
}

/// Where a value stands in an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A JSON pointer (RFC 6901), not empty: of the body, or of the first event of a stream that has it.
    Pointer(String),
    /// The first header of this name.
    Header(HeaderName),
    /// A cookie that the answer sets.
    Cookie(String),
    /// The first match in the body, or in an event of a stream: its first group, or all of it.
    Pattern(BodyPattern),
}

/// A regular expression for bodies, equal to another one written the same. Its classes are those of ASCII.
#[derive(Debug, Clone)]
pub struct BodyPattern(pub Regex);

impl PartialEq for BodyPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
