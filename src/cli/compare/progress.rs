//! Progress of a comparison on standard error: one line that is rewritten on a terminal, otherwise a new line
//! for every change.

use std::convert::Infallible;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::lab::compare::Status;

/// Interval between two updates.
const PAUSE: Duration = Duration::from_millis(500);
/// Moves to the beginning of the line and clears it.
const REWRITE: &str = "\r\x1b[K";

/// Shows the progress until dropped.
pub(super) async fn show(status: watch::Receiver<Status>) -> Infallible {
    let rewrites = stderr().is_terminal();
    let mut told = (u32::MAX, None);
    loop {
        let status = status.borrow().clone();
        let phase = (status.done, status.event.clone());
        if status.round > 0 && rewrites {
            eprint!("{REWRITE}{}", line(&status));
        } else if status.round > 0 && phase != told {
            eprintln!("{}", line(&status));
            told = phase;
        }
        sleep(PAUSE).await;
    }
}

/// Clears the line on a terminal.
pub(super) fn clear() {
    if stderr().is_terminal() {
        eprint!("{REWRITE}");
    }
}

fn line(status: &Status) -> String {
    let Status { round, rounds, mode, event, load, .. } = status;
    let part = match &status.assumption {
        Some(about) => about.clone(),
        None => format!("round {round}/{rounds}"),
    };
    let event = event.as_deref().map_or(String::new(), |event| format!("  {event}"));
    let left = status.left().as_secs();
    format!(
        "{part}  {mode:<7} {:>3.0}/{:.0} s  {:>5.0}/s  p99 {:>5.0} ms  {} failed  {} lost  {}:{:02} left{event}",
        // The elapsed time exceeds the total while remaining responses are still read.
        load.elapsed.min(load.total).as_secs_f64(),
        load.total.as_secs_f64(),
        // Adding 0.0 turns -0.0 into 0.0, so that "-0" is never printed.
        load.rate + 0.0,
        load.p99,
        load.failed,
        load.lost,
        left / 60,
        left % 60,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::load::Progress;

    #[test]
    fn a_line_tells_where_it_is_and_how_it_goes() {
        let load = Progress {
            elapsed: Duration::from_secs(4),
            total: Duration::from_secs(12),
            failed: 1,
            lost: 2,
            rate: 81.4,
            p99: 120.2,
            ..Progress::default()
        };
        let event = Some("api-1 killed".to_owned());
        let status =
            Status { runs: 9, round: 1, rounds: 3, mode: "sticky", event, load, ..Status::default() };
        assert_eq!(
            line(&status),
            "round 1/3  sticky    4/12 s     81/s  p99   120 ms  1 failed  2 lost  2:20 left  api-1 killed"
        );
        let load = Progress { elapsed: Duration::from_secs(13), ..status.load.clone() };
        let late = line(&Status { load, ..status });
        assert!(late.starts_with("round 1/3  sticky   12/12 s "), "{late}");
    }
}
