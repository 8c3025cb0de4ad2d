//! Limits the lifetime and memory of a process that an upgrade has replaced.

use std::fmt;
use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config;

/// Interval between two readings of the resident memory.
const LOOK: Duration = Duration::from_secs(3);

/// The limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Age,
    Memory,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::Age => "upgrade.max_age",
            Limit::Memory => "upgrade.max_memory",
        })
    }
}

/// Completes when this process exceeds `max_age` (counted from this call) or `max_memory`. Returns which
/// limit.
pub(super) async fn over(limits: &config::Upgrade) -> Limit {
    let end = Instant::now() + limits.max_age;
    loop {
        if resident().is_some_and(|bytes| bytes > limits.max_memory) {
            return Limit::Memory;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Limit::Age;
        }
        sleep(left.min(LOOK)).await;
    }
}

/// Resident memory of this process in bytes. `None` where `/proc/self/status` does not provide it.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(seconds: u64, max_memory: u64) -> config::Upgrade {
        config::Upgrade { timeout: LOOK, max_age: Duration::from_secs(seconds), max_memory }
    }

    #[tokio::test(start_paused = true)]
    async fn age_and_memory_end_a_retirement() {
        let begun = Instant::now();
        assert_eq!(over(&limits(3600, u64::MAX)).await, Limit::Age);
        assert_eq!(begun.elapsed(), Duration::from_secs(3600));
        assert_eq!(over(&limits(3600, 4096)).await, Limit::Memory);
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert!((1 << 20..1 << 40).contains(&resident().unwrap()));
    }
}
