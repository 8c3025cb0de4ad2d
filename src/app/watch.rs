//! Detects changes of a file.
//!
//! The file is polled instead of watched with inotify. Polling works on every file system, and through the
//! symbolic links that Kubernetes swaps when a ConfigMap changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Polling interval. A file counts as changed only when two consecutive polls see the same stamp, so that a
/// file is not read while it is being written.
const LOOK: Duration = Duration::from_secs(1);

/// File metadata for change detection: device, inode, size, and the modification time in seconds and
/// nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// The last observed state of a file. The default has observed nothing, so the first existing file counts as
/// a change.
#[derive(Debug, Default)]
pub(super) struct FileWatch {
    /// The stamp at the last poll.
    seen: Option<Stamp>,
    /// The stamp when the content was last read.
    taken: Option<Stamp>,
    content: Vec<u8>,
}

impl FileWatch {
    /// Completes when the content of the file has changed since the last completion. Never completes when
    /// `path` is `None`. Cancel-safe.
    pub(super) async fn changed(&mut self, path: Option<PathBuf>) {
        let Some(path) = path else { return std::future::pending().await };
        loop {
            sleep(LOOK).await;
            let looked = path.clone();
            // A missing file or a failed task is no change: the file may be absent for a moment while it is
            // replaced.
            let stamp = spawn_blocking(move || stamp(&looked)).await.ok().flatten();
            let settled = stamp.is_some() && stamp == self.seen;
            self.seen = stamp;
            if settled && stamp != self.taken && self.take(&path, stamp).await {
                return;
            }
        }
    }

    /// Reads the file. Returns whether its content differs from the last content read.
    async fn take(&mut self, path: &Path, stamp: Option<Stamp>) -> bool {
        let path = path.to_owned();
        let Ok(Ok(content)) = spawn_blocking(move || fs::read(path)).await else { return false };
        self.taken = stamp;
        let content = digest(&SHA256, &content).as_ref().to_vec();
        let is_new = content != self.content;
        self.content = content;
        is_new
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::time::timeout;

    use super::*;

    /// Whether a change is detected within a few polls.
    async fn noticed(watch: &mut FileWatch, path: &Path) -> bool {
        timeout(LOOK * 4, watch.changed(Some(path.to_owned()))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn new_content_is_noticed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("file"), directory.path().join("other"));
        let mut watch = FileWatch::default();
        assert!(!noticed(&mut watch, &path).await, "there is no file");
        fs::write(&path, "one").unwrap();
        assert!(noticed(&mut watch, &path).await);
        assert!(!noticed(&mut watch, &path).await);
        fs::write(&path, "two").unwrap();
        assert!(noticed(&mut watch, &path).await);
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!noticed(&mut watch, &path).await, "another file says the same");
        fs::remove_file(&path).unwrap();
        assert!(!noticed(&mut watch, &path).await);
        assert!(!noticed(&mut FileWatch::default(), &path).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_swapped_link_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, content) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("file"), content).unwrap();
        }
        symlink("v1", at("data")).unwrap();
        symlink("data/file", at("file")).unwrap();
        let mut watch = FileWatch::default();
        assert!(noticed(&mut watch, &at("file")).await);
        symlink("v2", at("new")).unwrap();
        fs::rename(at("new"), at("data")).unwrap();
        assert!(noticed(&mut watch, &at("file")).await);
    }
}
