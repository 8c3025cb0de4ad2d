//! What a process has used, as the system tells. Other systems than Linux do not tell.

use std::fs;

use rustix::param::clock_ticks_per_second;

/// Processor time in microseconds, of all threads, in and for the process; steps of 10 ms.
pub(super) fn processor(id: u32) -> Option<f64> {
    let ticks = processor_ticks(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?;
    Some(ticks as f64 * 1e6 / clock_ticks_per_second() as f64)
}

/// `utime` and `stime` of proc_pid_stat(5).
fn processor_ticks(stat: &str) -> Option<u64> {
    // The name may hold anything, also a bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// Most resident memory so far, in MiB.
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
    fn times_are_found_behind_any_name() {
        let stat = "42 (a) b 7) S 1 42 42 0 -1 4194560 100 0 0 0 30 12 5 6 20 0 4 0 100 1000 10";
        assert_eq!(processor_ticks(stat), Some(42));
    }

    #[test]
    fn the_peak_is_told_in_kibibytes() {
        assert_eq!(peak_kibibytes("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t  2048 kB\n"), Some(2048));
        assert_eq!(peak_kibibytes("Name:\tx\n"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "\\PC{0,80}") {
            let _ = (processor_ticks(&text), peak_kibibytes(&text));
        }
    }
}
