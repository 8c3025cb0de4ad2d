//! Diagnostics for operators, on standard error.

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt;

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Installs the process-wide subscriber; only the first call of a process has an effect. `level` is a
/// level name or filter directives (`info`, `vestibule=debug`).
pub fn init(format: Format, level: &str) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(level)?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second subscriber is refused; the first keeps working, so there is nothing to report.
    let _ = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
