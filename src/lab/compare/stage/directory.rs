//! A private temporary directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory that is removed on drop.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Creates a new directory among the system's temporary files, accessible only to this user.
    pub(super) fn create() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("vestibule-compare-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Directory(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file atomically. Returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        fs::write(&new, text)?;
        fs::rename(new, &path)?;
        Ok(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A remainder stays among the system's temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
