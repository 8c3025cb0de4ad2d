//! The report of a comparison: one page for people, the same in short for a pull request, and the figures for
//! programs.
//!
//! The page is a single file without scripts, and its content security policy allows nothing to be loaded. All that
//! comes from outside, names of scenarios, instances and failures, goes through `escape`.

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

/// What [`write()`] wrote.
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

/// Finds out whether [`write()`] would find another report in `directory`, before anything is measured.
///
/// # Errors
/// [`ReportError::Exists`] with the first file in the way.
pub fn vacant(directory: &Path) -> Result<(), ReportError> {
    let Written { html, markdown, json, csv } = Written::within(directory);
    match [html, markdown, json, csv].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(ReportError::Exists(path)),
        None => Ok(()),
    }
}

/// Writes the report into `directory`, which is made when it is not there. Each file appears whole or not at all.
///
/// # Errors
/// [`ReportError::Exists`] when a file of that name is there, otherwise the system's error; what was written until
/// then stays.
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

/// Writes a file under another name first, so that nobody finds half of it.
fn put(path: &Path, text: &str) -> Result<(), ReportError> {
    let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
    let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|source| {
        // What is left of it is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        ReportError::Write { path: path.to_owned(), source }
    })
}
