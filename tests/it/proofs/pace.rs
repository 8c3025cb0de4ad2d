//! What the machine kept from those under test: time that a short proof forgives.
//!
//! A promise of a time is one of the program, not of a machine that has other things to do. The system counts how long
//! each thread was ready to run and did not (`/proc/PID/task/TID/schedstat`), and how much of the processors a
//! hypervisor took (`/proc/stat`). On an idle machine that is next to nothing, so nothing is forgiven there.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::long;

/// How often it looks.
const STEP: Duration = Duration::from_millis(25);

/// Counts from its start on, for this process and those that descend from it.
#[derive(Debug, Clone)]
pub(crate) struct Pace(Arc<Mutex<Account>>);

#[derive(Debug, Default)]
struct Account {
    /// By process and thread.
    waited: HashMap<(u32, u32), Duration>,
    stolen: Duration,
    /// What was kept from all together until then.
    kept: Vec<(Instant, Duration)>,
}

impl Pace {
    /// The long form is for a machine of its own: it forgives nothing, and nothing is counted.
    pub(crate) fn start() -> Self {
        let mut account = Account::default();
        account.look();
        account.kept = vec![(Instant::now(), Duration::ZERO)];
        let account = Arc::new(Mutex::new(account));
        let counting = Arc::downgrade(&account);
        if !long() {
            thread::spawn(move || {
                while let Some(account) = counting.upgrade() {
                    account.lock().unwrap().look();
                    drop(account);
                    thread::sleep(STEP);
                }
            });
        }
        Self(account)
    }

    /// How much was kept from them between these two moments: no less than it was.
    pub(crate) fn kept(&self, from: Instant, to: Instant) -> Duration {
        if long() {
            return Duration::ZERO;
        }
        let mut account = self.0.lock().unwrap();
        if account.kept[account.kept.len() - 1].0 < to {
            account.look();
        }
        let before =
            account.kept.iter().rev().find(|(at, _)| *at <= from).map_or(Duration::ZERO, |(_, kept)| *kept);
        let (_, last) = account.kept[account.kept.len() - 1];
        let after = account.kept.partition_point(|(at, _)| *at < to);
        account.kept.get(after).map_or(last, |(_, kept)| *kept) - before
    }

    /// What something took that was begun then, without what was kept from it.
    pub(crate) fn net(&self, begun: Instant, took: Duration) -> Duration {
        took.saturating_sub(self.kept(begun, begun + took))
    }

    /// [`net`](Self::net) until now.
    pub(crate) fn since(&self, begun: Instant) -> Duration {
        self.net(begun, begun.elapsed())
    }
}

impl Account {
    fn look(&mut self) {
        let mut more = Duration::ZERO;
        for process in family() {
            for thread in threads(process) {
                // It may have ended meanwhile.
                let Some(waited) = waited(process, thread) else { continue };
                let before = self.waited.insert((process, thread), waited).unwrap_or_default();
                more += waited.saturating_sub(before);
            }
        }
        let stolen = stolen();
        more += stolen.saturating_sub(std::mem::replace(&mut self.stolen, stolen));
        let kept = self.kept.last().map_or(Duration::ZERO, |(_, kept)| *kept);
        self.kept.push((Instant::now(), kept + more));
    }
}

/// This process and its descendants.
fn family() -> Vec<u32> {
    let (mut all, mut next) = (vec![std::process::id()], 0);
    while let Some(process) = all.get(next).copied() {
        next += 1;
        for thread in threads(process) {
            let children = fs::read_to_string(format!("/proc/{process}/task/{thread}/children"));
            all.extend(
                children.unwrap_or_default().split_whitespace().filter_map(|id| id.parse::<u32>().ok()),
            );
        }
    }
    all
}

fn threads(process: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn waited(process: u32, thread: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/schedstat")).ok()?;
    text.split(' ').nth(1)?.parse().ok().map(Duration::from_nanos)
}

fn stolen() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = text.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
    Duration::from_millis(10) * ticks.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// Programs that leave no processor idle; dropping them ends them.
    struct Busy(Vec<Child>);

    impl Busy {
        fn start(count: usize) -> Self {
            let one = |_| {
                let mut command = Command::new("sh");
                command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
            };
            Self((0..count).map(one).collect())
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            for child in &mut self.0 {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    #[test]
    fn what_a_crowded_machine_keeps_from_its_programs_is_counted() {
        let processors = thread::available_parallelism().unwrap().get();
        let pace = Pace::start();
        let begun = Instant::now();
        let _busy = Busy::start(2 * processors);
        // At most half of what they want to do can be done.
        while pace.kept(begun, Instant::now()) < Duration::from_millis(200) {
            assert!(begun.elapsed() < crate::support::DEADLINE, "nothing is counted");
            thread::sleep(STEP);
        }
        assert!(pace.net(begun, Duration::from_millis(1)) <= Duration::from_millis(1));
    }

    #[test]
    fn nothing_is_kept_before_it_began_and_nothing_is_kept_twice() {
        let pace = Pace::start();
        let (begun, _busy) = (Instant::now(), Busy::start(4));
        thread::sleep(4 * STEP);
        let middle = Instant::now();
        thread::sleep(4 * STEP);
        let end = Instant::now();
        let all = pace.kept(begun, end);
        assert!(pace.kept(begun, middle) <= all && pace.kept(middle, end) <= all);
    }
}
