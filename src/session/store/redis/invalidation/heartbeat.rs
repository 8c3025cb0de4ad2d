//! Heartbeats verify that invalidations arrive: a key of this process is changed regularly, and its
//! invalidation must come back.
//!
//! `ROLE` and `PING` verify only that a connection works. Invalidations may still be missing: tracking may be
//! off, or a proxy in between may drop RESP3 pushes. A heartbeat is written over one connection and its
//! invalidation arrives on another one, after those of all changes that the server made before it.
//!
//! Each heartbeat has its own key and deletes the key of the previous one. An invalidation therefore
//! identifies one heartbeat. If the previous key is missing, the data set has been replaced: `SWAPDB`, `DEBUG
//! RELOAD` and a copy that lacks recent writes cause no invalidations and are detected in no other way.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use redis::{Cmd, cmd};
use tokio::sync::watch;

use super::super::codec::HEARTBEAT;

/// TTL of a heartbeat key, which removes it after the process has exited.
const KEPT: Duration = Duration::from_secs(600);

/// Deletes one heartbeat key and writes the next. Returns whether the first existed. `DEL` comes first
/// because Redis checks `maxmemory` only before the first write of a script; `SET` then succeeds even when
/// memory is full.
const BEAT: &str = "local kept = redis.call('DEL', KEYS[1]) \
    redis.call('SET', KEYS[2], '', 'PX', ARGV[1]) \
    return kept";

/// The heartbeats of one connection.
pub(super) struct Heartbeat {
    /// `vestibule:heartbeat:{tag}:<random>:`
    prefix: String,
    written: AtomicU64,
    heard: watch::Receiver<u64>,
}

/// Receives invalidations and records those of heartbeats.
pub(super) struct Stethoscope {
    prefix: String,
    heard: watch::Sender<u64>,
}

impl Heartbeat {
    /// Creates heartbeats whose keys have this hash tag. A random part keeps them distinct from those of
    /// other processes.
    pub(super) fn new(tag: &str) -> (Self, Stethoscope) {
        let prefix = format!("{HEARTBEAT}{{{tag}}}:{:032x}:", fastrand::u128(..));
        let (heard, hears) = watch::channel(0);
        let heart = Heartbeat { prefix: prefix.clone(), written: AtomicU64::new(0), heard: hears };
        (heart, Stethoscope { prefix, heard })
    }

    /// The common prefix of the keys.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The command that writes the next heartbeat, and whether the previous key should exist. The reply of
    /// the command is 1 if it did.
    pub(super) fn next(&self) -> (Cmd, bool) {
        let last = self.written.fetch_add(1, Relaxed);
        let mut beat = cmd("EVAL");
        beat.arg(BEAT).arg(2);
        beat.arg(format!("{}{last}", self.prefix)).arg(format!("{}{}", self.prefix, last + 1));
        beat.arg(u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX));
        (beat, last > 0)
    }

    /// Completes when the invalidation of the last written heartbeat has arrived. Never completes if the
    /// connection's [`Stethoscope`] has been dropped before.
    pub(super) async fn heard(&self) {
        let written = self.written.load(Relaxed);
        if self.heard.clone().wait_for(|heard| *heard >= written).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Stethoscope {
    /// Records the invalidation of `key` if it is a heartbeat key.
    pub(super) fn hear(&self, key: &[u8]) {
        let number = key.strip_prefix(self.prefix.as_bytes()).and_then(|number| str::from_utf8(number).ok());
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            self.heard.send_if_modified(|heard| {
                let is_news = number > *heard;
                *heard = number.max(*heard);
                is_news
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn keys(command: &Cmd) -> Vec<String> {
        let packed = String::from_utf8(command.get_packed_command()).unwrap();
        packed.lines().filter(|line| line.starts_with(HEARTBEAT)).map(str::to_owned).collect()
    }

    #[test]
    fn a_beat_is_heard_by_its_own_key_only() {
        let (heart, ear) = Heartbeat::new("x");
        let (first, expects_one_before) = heart.next();
        assert!(!expects_one_before);
        let [before, now] = &keys(&first)[..] else { panic!("two keys") };
        for other in [before.as_str(), "session:a", "vestibule:heartbeat:{x}:y:1", ""] {
            ear.hear(other.as_bytes());
            assert!(heart.heard().now_or_never().is_none(), "{other}");
        }
        ear.hear(now.as_bytes());
        assert!(heart.heard().now_or_never().is_some());
    }

    #[test]
    fn the_report_of_a_former_beat_proves_nothing_of_the_next() {
        let (heart, ear) = Heartbeat::new("x");
        let (first, _) = heart.next();
        let (second, expects_one_before) = heart.next();
        assert!(expects_one_before);
        ear.hear(keys(&first)[1].as_bytes());
        assert!(heart.heard().now_or_never().is_none());
        assert_eq!(keys(&second)[0], keys(&first)[1], "the next one removes it");
        ear.hear(keys(&second)[1].as_bytes());
        assert!(heart.heard().now_or_never().is_some());
    }

    #[test]
    fn golden_a_beat_is_written_as_it_always_was() {
        let (heart, _) = Heartbeat::new("x");
        let random = heart.prefix().strip_prefix("vestibule:heartbeat:{x}:").unwrap().to_owned();
        assert!(random.len() == 33 && random.ends_with(':'), "{random}");
        let packed = String::from_utf8(heart.next().0.get_packed_command()).unwrap();
        let expected = "\
*6\r\n$4\r\nEVAL\r\n\
$97\r\nlocal kept = redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[2], '', 'PX', ARGV[1]) return kept\r\n\
$1\r\n2\r\n\
$58\r\nvestibule:heartbeat:{x}:RANDOM:0\r\n\
$58\r\nvestibule:heartbeat:{x}:RANDOM:1\r\n\
$6\r\n600000\r\n";
        assert_eq!(packed.replace(random.trim_end_matches(':'), "RANDOM"), expected);
    }

    #[test]
    fn nobody_else_has_the_same_keys() {
        assert_ne!(Heartbeat::new("x").0.prefix(), Heartbeat::new("x").0.prefix());
    }
}
