//! Resource usage of a process from `/proc`. Not available on systems other than Linux.

use std::fs;

/// CPU time in microseconds of all running threads, in user and kernel mode. Ended threads are not included.
/// The per-process counters are not used: their steps of 10 ms are too coarse for an idle process.
pub(super) fn processor(id: u32) -> Option<f64> {
    let threads = fs::read_dir(format!("/proc/{id}/task")).ok()?;
    let times = threads.map(|thread| {
        // The thread may have ended meanwhile.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { return Some(0) };
        nanoseconds(&text)
    });
    Some(times.sum::<Option<u64>>()? as f64 / 1e3)
}

/// The first field of a thread's schedstat: its run time in nanoseconds.
fn nanoseconds(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// Peak resident memory in MiB.
pub(super) fn peak_memory(id: u32) -> Option<f64> {
    peak_kibibytes(&fs::read_to_string(format!("/proc/{id}/status")).ok()?)
        .map(|kibibytes| kibibytes as f64 / 1024.0)
}

fn peak_kibibytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_time_that_a_thread_ran_comes_first() {
        assert_eq!(nanoseconds("1462373 20300 11\n"), Some(1_462_373));
        assert_eq!((nanoseconds(""), nanoseconds("x 1 2")), (None, None));
    }

    #[test]
    fn a_process_that_works_takes_time() {
        let before = processor(std::process::id()).unwrap();
        let sum: u64 = std::hint::black_box(0..2_000_000_u64).map(std::hint::black_box).sum();
        assert!(sum > 0 && processor(std::process::id()).unwrap() > 0.0 && before >= 0.0);
        assert_eq!(processor(u32::MAX), None);
    }

    #[test]
    fn the_peak_is_told_in_kibibytes() {
        assert_eq!(peak_kibibytes("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  2048 kB\n"), Some(2048));
        assert_eq!(peak_kibibytes("Name:\tx\n"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,80}") {
            let _ = (nanoseconds(&text), peak_kibibytes(&text));
        }
    }
}
