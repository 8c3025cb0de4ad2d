//! The configuration: read, parsed, validated as a whole, typed.
//!
//! [`load`] turns a file into a [`Config`] or into [`Problems`]: all mistakes at once, each with its
//! position, reason and remedy. Only a syntax error is reported alone, because nothing after it can be parsed
//! reliably. `config/vestibule.toml` documents every key with its default.

use std::path::{Path, PathBuf};
use std::{fs, io};

mod application;
mod canary;
pub mod capture;
mod caution;
mod change;
mod discovery;
mod excerpt;
mod fault;
mod file;
mod health;
mod mode;
mod model;
mod nearest;
mod problem;
mod redis_url;
mod reference;
mod retry;
mod route_header;
pub mod scenario;
mod section;
pub mod staging;
mod stickiness;
pub mod template;
mod upstream;
mod validate;
mod value;

pub use application::{Application, ApplicationInstance};
pub use canary::{Canary, CanaryAuto, CanaryMatch, Condition, Device, Percent, ValueTest};
pub use change::{Pattern, Reload, RemovedStreams, Upgrade};
pub use discovery::{AddressFamily, Discovery, DiscoverySource, DnsDiscovery, DnsQuestion, OnEmpty};
pub use health::*;
pub use mode::{Mode, Modes, Shares};
pub use model::*;
pub use problem::{Place, Problem, Problems};
pub use redis_url::{Credentials, Host, RedisKind, RedisUrl};
pub use reference::{ReferenceError, secret};
pub use retry::*;
pub use route_header::{RequestPiece, RequestVariable, RouteHeader};
pub use scenario::Scenario;
pub use stickiness::*;
pub use upstream::*;
pub use value::duration_of_text as duration;

pub use crate::headers::set_cookie::{CookieAttributes, SameSite, SecureAttribute};

use fault::{Fault, Report, Spot};
use section::Section;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the configuration file {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file has mistakes.
    #[error(transparent)]
    Invalid(#[from] Problems),
}

/// Reads and validates the file at `path`. Blocks.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text =
        fs::read_to_string(path).map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
    Ok(parse(&text, &path.display().to_string())?)
}

/// Validates the text of a configuration file. `name` is the file name in the problems.
///
/// Reads the environment variables and files that `env:NAME` and `file:PATH` refer to, and nothing else.
pub fn parse(text: &str, name: &str) -> Result<Config, Problems> {
    read(text, name, validate::config)
}

/// Validates the text of an instance file: `[[instance]]` tables with the keys of `[[upstream.instance]]`, or
/// `instance = []` for none. `name` is the file name in the problems. `max_requests` is the default number of
/// slots of an instance.
pub fn parse_instances(
    text: &str,
    name: &str,
    max_requests: Option<usize>,
) -> Result<Vec<Instance>, Problems> {
    read(text, name, |s| Some(validate::instances(s, max_requests)))
}

/// Validates the text of an application file. `name` is the file name in the problems.
pub fn parse_application(text: &str, name: &str) -> Result<Application, Problems> {
    read(text, name, validate::application)
}

/// Validates the text of a scenario file. `name` is the file name in the problems.
pub fn parse_scenario(text: &str, name: &str) -> Result<Scenario, Problems> {
    read(text, name, validate::scenario)
}

fn read<T>(
    text: &str,
    name: &str,
    validate: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let mut report = Report::default();
    let (read, leaves) = match file::parse(text) {
        Ok(table) => (section::root(&table, &mut report, validate), table.leaves()),
        Err(error) => {
            let at = error.span.start;
            report.push(Spot { key: String::new(), span: at..at }, not_toml(&error.message));
            (None, Vec::new())
        }
    };
    match read {
        Some(read) if report.is_empty() => Ok(read),
        _ => Err(report.into_problems(name, text, &leaves)),
    }
}

fn not_toml(message: &str) -> Fault {
    let why = "nothing behind this place can be read; more problems may follow once it is right";
    Fault::new(
        format!("this is not TOML: {message}"),
        why,
        "put text in quotes and each key on a line of its own; https://toml.io tells the rest",
    )
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
