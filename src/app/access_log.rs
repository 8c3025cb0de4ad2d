//! Where the access log goes.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::time::Duration;

use tokio::time::timeout;

use super::AppError;
use crate::config::AccessLogOutput;
use crate::telemetry::lines::{LineSink, LineWriter};

/// How long the end waits for the access log to be written.
const LAST_LINES: Duration = Duration::from_secs(2);

pub(super) type AccessLog = (LineSink, LineWriter);

/// Opens the output; `None` when there is to be no log.
pub(super) fn open(output: &AccessLogOutput) -> Result<Option<AccessLog>, AppError> {
    let output: Box<dyn Write + Send> = match output {
        AccessLogOutput::Off => return Ok(None),
        AccessLogOutput::Stdout => Box::new(io::stdout()),
        AccessLogOutput::Stderr => Box::new(io::stderr()),
        AccessLogOutput::File(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.map_err(|source| AppError::AccessLog { path: path.clone(), source })?)
        }
    };
    LineSink::start(output).map(Some).map_err(AppError::Thread)
}

/// Writes what is left.
pub(super) async fn close((sink, writer): AccessLog) {
    drop(sink);
    // An output that nobody reads must not keep the process.
    let _ = timeout(LAST_LINES, tokio::task::spawn_blocking(|| writer.join())).await;
}
