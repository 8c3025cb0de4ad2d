//! Progress of a load test on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use crate::lab::load::Progress;

/// Interval between two lines when standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress: one line that is rewritten on a terminal, otherwise a new line every few seconds.
/// Returns when the sender is dropped.
pub(super) async fn show(mut progress: Receiver<Progress>) {
    let is_terminal = io::stderr().is_terminal();
    while progress.changed().await.is_ok() {
        let line = line(&progress.borrow_and_update());
        let written = match is_terminal {
            true => write!(io::stderr(), "\r{line}\x1b[K"),
            false => writeln!(io::stderr(), "{line}"),
        };
        if written.is_err() {
            return;
        }
        if !is_terminal {
            sleep_until(Instant::now() + LINE_EVERY).await;
        }
    }
}

/// Clears the line on a terminal.
pub(super) fn clear() {
    if io::stderr().is_terminal() {
        // A failed write to a terminal is ignored.
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

fn line(progress: &Progress) -> String {
    let Progress { elapsed, total, done, failed, lost, rate, p99, .. } = progress;
    let left = total.saturating_sub(*elapsed).as_secs_f64().ceil();
    let when = if left > 0.0 { format!("{left:.0} s left") } else { "ending".to_owned() };
    format!("{when}: {rate:.0}/s, p99 {p99:.1} ms, {done} done, {failed} failed, {lost} sessions lost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_failures_losses_and_latency() {
        let mut progress = Progress {
            began: None,
            elapsed: Duration::from_millis(2400),
            total: Duration::from_secs(10),
            done: 240,
            failed: 3,
            lost: 2,
            rate: 99.6,
            p99: 12.34,
        };
        assert_eq!(line(&progress), "8 s left: 100/s, p99 12.3 ms, 240 done, 3 failed, 2 sessions lost");
        progress.elapsed = Duration::from_secs(11);
        assert!(line(&progress).starts_with("ending: "));
    }
}
