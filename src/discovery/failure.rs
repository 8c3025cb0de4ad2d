//! Why a look-up failed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Problem, Problems};

/// Why a look-up gave no set of instances. The last good set is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the system's list of resolvers cannot be used: {0}")]
    System(String),
    #[error("{0} cannot be asked for: {1}")]
    Name(String, String),
    #[error("no good answer about {0}: {1}")]
    Answer(String, String),
    #[error("{0} does not exist (NXDOMAIN)")]
    Unknown(String),
    #[error("{0} names no instance")]
    Empty(String),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {}", path.display(), first(problems))]
    Invalid { path: PathBuf, problems: Problems },
}

impl Failure {
    /// Whether it is a valid negative response: there is nothing.
    pub(super) fn is_negative(&self) -> bool {
        matches!(self, Failure::Unknown(_) | Failure::Empty(_))
    }
}

/// The first problem in one line, with the number of further ones.
fn first(problems: &Problems) -> String {
    let mut all = problems.iter();
    let Some(Problem { place, what, help, .. }) = all.next() else { return String::new() };
    let more = match all.len() {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    format!("line {}, column {}: {what}; {help}{more}", place.line, place.column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_instances;

    #[test]
    fn a_wrong_file_is_told_in_one_line_with_its_place() {
        let text = "[[instance]]\naddress = \"here\"\nwait = 1\n";
        let problems = parse_instances(text, "app.toml", None).unwrap_err();
        let failure = Failure::Invalid { path: "app.toml".into(), problems };
        assert_eq!(
            failure.to_string(),
            "app.toml: line 2, column 11: \"here\" is not an address; \
             write IP:port, such as \"127.0.0.1:8080\" or \"[::1]:8080\" (and 1 more)"
        );
    }
}
