//! Scenarios: built-in ones, and those in files.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::config::{self, Problems, Scenario};

/// A built-in scenario.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn {
    pub name: &'static str,
    /// The text of its file.
    pub text: &'static str,
}

/// All built-in scenarios.
pub const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn { name: "dify-chat", text: include_str!("../../../config/scenarios/dify-chat.toml") },
    BuiltIn { name: "console-burst", text: include_str!("../../../config/scenarios/console-burst.toml") },
    BuiltIn { name: "plain-api", text: include_str!("../../../config/scenarios/plain-api.toml") },
    BuiltIn {
        name: "published-sessions",
        text: include_str!("../../../config/scenarios/published-sessions.toml"),
    },
    BuiltIn {
        name: "published-writes",
        text: include_str!("../../../config/scenarios/published-writes.toml"),
    },
];

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("no scenario {name:?}: it is neither a file nor one of {known}")]
    Unknown { name: String, known: String },
    #[error("cannot read the scenario {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// The built-in scenario of this name, or the one in this file, and its text. Blocks.
pub fn scenario(name: &str) -> Result<(Scenario, String), ScenarioError> {
    let path = Path::new(name);
    let text = match BUILT_IN.iter().find(|built_in| built_in.name == name) {
        Some(built_in) => built_in.text.to_owned(),
        None => fs::read_to_string(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ScenarioError::Unknown { name: name.to_owned(), known: known() },
            _ => ScenarioError::Read { path: path.to_owned(), source },
        })?,
    };
    Ok((config::parse_scenario(&text, name)?, text))
}

fn known() -> String {
    BUILT_IN.map(|built_in| built_in.name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_the_program_is_sound_and_has_its_name() {
        for built_in in BUILT_IN {
            let (scenario, text) = scenario(built_in.name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((scenario.name.as_str(), text.as_str()), (built_in.name, built_in.text));
            assert!(!scenario.about.is_empty());
        }
    }

    #[test]
    fn other_scenarios_are_files() {
        let error = scenario("dify").unwrap_err().to_string();
        let known = "dify-chat, console-burst, plain-api, published-sessions, published-writes";
        assert_eq!(error, format!("no scenario \"dify\": it is neither a file nor one of {known}"));
        assert!(matches!(scenario("/"), Err(ScenarioError::Read { .. })));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/scenarios/plain-api.toml");
        assert_eq!(scenario(file).unwrap().0.name, "plain-api");
    }
}
