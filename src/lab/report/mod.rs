//! The report of a comparison: an HTML page, a short version for a pull request, and the figures for
//! programs.
//!
//! The page is a single file without scripts; its content security policy forbids loading anything. All
//! untrusted text (names of scenarios, instances and failures) is escaped by `escape`.

mod csv;
mod escape;
mod gather;
mod markdown;
mod page;
mod plot;
mod published;
mod sections;
mod tables;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::compare::Comparison;

/// The files that [`write()`] has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The self-contained page.
    pub html: PathBuf,
    /// For a pull request.
    pub markdown: PathBuf,
    /// The comparison itself.
    pub json: PathBuf,
    /// One row per run.
    pub csv: PathBuf,
}

impl Written {
    fn within(directory: &Path) -> Self {
        Written {
            html: directory.join("report.html"),
            markdown: directory.join("report.md"),
            json: directory.join("comparison.json"),
            csv: directory.join("runs.csv"),
        }
    }
}

/// Why a report was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("there is a report already: {}; remove it or write to another directory", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot put the comparison into JSON")]
    Json(#[from] serde_json::Error),
}

/// Checks before the measurement that `directory` contains no other report.
///
/// # Errors
/// [`ReportError::Exists`] with the first existing file.
pub fn vacant(directory: &Path) -> Result<(), ReportError> {
    let Written { html, markdown, json, csv } = Written::within(directory);
    match [html, markdown, json, csv].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(ReportError::Exists(path)),
        None => Ok(()),
    }
}

/// Writes the report into `directory`, which is created if necessary. Each file is written atomically.
///
/// # Errors
/// [`ReportError::Exists`] when a file already exists, otherwise the system's error. Files that are already
/// written stay.
pub fn write(comparison: &Comparison, directory: &Path) -> Result<Written, ReportError> {
    vacant(directory)?;
    fs::create_dir_all(directory)
        .map_err(|source| ReportError::Write { path: directory.to_owned(), source })?;
    let written = Written::within(directory);
    put(&written.json, &serde_json::to_string(comparison)?)?;
    put(&written.csv, &csv::csv(comparison))?;
    put(&written.markdown, &markdown::markdown(comparison))?;
    put(&written.html, &page::page(comparison))?;
    Ok(written)
}

/// Writes a file under a temporary name first, so that a partial file is never visible.
fn put(path: &Path, text: &str) -> Result<(), ReportError> {
    let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        // Removes the partial file; the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        ReportError::Write { path: path.to_owned(), source }
    })
}
