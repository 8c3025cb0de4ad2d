//! The machine of a comparison.

use std::fs;
use std::thread;

use super::model::Machine;

impl Machine {
    /// This machine, as far as the system provides the data.
    pub(super) fn this() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (processors, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let release = read("/proc/sys/kernel/osrelease");
        Machine {
            processor: value(&processors, "model name").unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: value(&memory, "MemTotal").and_then(mebibytes).unwrap_or_default(),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim().to_owned(),
        }
    }
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

fn mebibytes(kibibytes: &str) -> Option<u64> {
    Some(kibibytes.strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_name() {
        let text = "processor\t: 0\nmodel name\t: A B\nMemTotal:       2048000 kB\n";
        assert_eq!(value(text, "model name"), Some("A B"));
        assert_eq!(value(text, "MemTotal").and_then(mebibytes), Some(2000));
        assert_eq!(value(text, "none"), None);
    }
}
