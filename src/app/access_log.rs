//! The output of the access log: standard output, standard error or a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use super::AppError;
use crate::config::AccessLogOutput;
use crate::telemetry::lines::{LineSink, LineWriter, Output};

/// Longest time that shutdown waits for the remaining access-log lines to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

pub(super) type AccessLog = (LineSink, LineWriter);

/// Opens the output and starts its writer thread. Returns `None` when the access log is off.
pub(super) fn open(output: &AccessLogOutput) -> Result<Option<AccessLog>, AppError> {
    let output: Box<dyn Output> = match output {
        AccessLogOutput::Off => return Ok(None),
        AccessLogOutput::Stdout => Box::new(io::stdout()),
        AccessLogOutput::Stderr => Box::new(io::stderr()),
        AccessLogOutput::File(path) => {
            let file = append(path).map_err(|source| AppError::AccessLog { path: path.clone(), source })?;
            Box::new(LogFile { file, path: path.clone() })
        }
    };
    LineSink::start(output).map(Some).map_err(AppError::Thread)
}

/// A log file that can be rotated: it may be renamed or removed while it is open.
struct LogFile {
    file: File,
    path: PathBuf,
}

impl Output for LogFile {
    fn reopen(&mut self) {
        match append(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => tracing::error!(
                path = %self.path.display(),
                %error,
                "the access log cannot be opened again: lines go on into the file that was open before"
            ),
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes the remaining lines. Waits at most [`LAST_LINES`].
pub(super) async fn close((sink, writer): AccessLog) {
    drop(sink);
    // A blocked output (such as a pipe without a reader) must not keep the process from exiting.
    let _ = timeout(LAST_LINES, tokio::task::spawn_blocking(|| writer.join())).await;
}
