//! Discovery from a file of instances that is read periodically.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::failure::Failure;
use crate::config::{self, Instance, Problems};

/// The whole file is read each time, because neither its time nor its size reveals every change. It is parsed
/// again only if its text has changed.
#[derive(Debug)]
pub(super) struct InstanceFile {
    path: PathBuf,
    max_requests: Option<usize>,
    last: Option<(String, Result<Vec<Instance>, Problems>)>,
}

impl InstanceFile {
    pub(super) fn new(path: &Path, max_requests: Option<usize>) -> Self {
        InstanceFile { path: path.to_owned(), max_requests, last: None }
    }

    /// The instances in the file at present.
    pub(super) async fn look(&mut self) -> Result<Vec<Instance>, Failure> {
        let path = self.path.clone();
        let text = spawn_blocking(move || fs::read_to_string(path))
            .await
            .unwrap_or_else(|lost| Err(io::Error::other(lost)));
        let text = text.map_err(|source| Failure::Read { path: self.path.clone(), source })?;
        let parsed = match self.last.take() {
            Some((last, parsed)) if last == text => parsed,
            _ => config::parse_instances(&text, &self.path.display().to_string(), self.max_requests),
        };
        self.last = Some((text, parsed.clone()));
        parsed.map_err(|problems| Failure::Invalid { path: self.path.clone(), problems })
    }
}
