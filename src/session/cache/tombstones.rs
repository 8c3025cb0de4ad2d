//! Tombstones in memory: session ids that are treated as absent whatever the store returns.
//!
//! They protect against a store that has lost a deletion, as a replica may have when it becomes the primary.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::super::SessionId;
use super::validity::Timestamp;

/// Why a session has a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TombstoneReason {
    /// The session was ended or revoked.
    Revoked,
    /// A login has created a session under another id. The client has a newer cookie already, or is about to
    /// receive it.
    Replaced,
}

impl TombstoneReason {
    /// The token for the store and for messages between vestibules.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TombstoneReason::Revoked => "revoked",
            TombstoneReason::Replaced => "replaced",
        }
    }

    pub(crate) fn parse(word: &[u8]) -> Option<Self> {
        [TombstoneReason::Revoked, TombstoneReason::Replaced]
            .into_iter()
            .find(|death| death.as_str().as_bytes() == word)
    }
}

/// Parses a tombstone message between vestibules: `<milliseconds left> <reason> <id>`. Returns `None` if it
/// is malformed.
pub(super) fn parse(text: &str) -> Option<(SessionId, TombstoneReason, Duration)> {
    let (millis, rest) = text.split_once(' ')?;
    let (death, id) = rest.split_once(' ')?;
    let death = TombstoneReason::parse(death.as_bytes())?;
    Some((SessionId::new(id), death, Duration::from_millis(millis.parse().ok()?)))
}

/// Tombstones by id. Each is kept until its session would have expired anyway.
#[derive(Debug, Default)]
pub(crate) struct Tombstones {
    graves: RwLock<HashMap<SessionId, (TombstoneReason, Timestamp)>>,
    /// Number of tombstones after the last sweep of expired ones.
    swept_at: AtomicUsize,
}

impl Tombstones {
    /// Adds a tombstone for `id` until `until`. An existing tombstone is never shortened, and
    /// [`TombstoneReason::Revoked`] takes precedence over [`TombstoneReason::Replaced`]. Sweeps expired
    /// tombstones when their number has doubled since the last sweep (2,048 at least), so that the cost per
    /// call is constant on average.
    pub(crate) fn bury(&self, id: &SessionId, death: TombstoneReason, until: Timestamp, now: Timestamp) {
        let mut graves = self.graves.write().unwrap_or_else(PoisonError::into_inner);
        let grave = graves.entry(id.clone()).or_insert((death, until));
        grave.1 = grave.1.max(until);
        if death == TombstoneReason::Revoked {
            grave.0 = death;
        }
        if graves.len() > 2 * self.swept_at.load(Relaxed).max(1024) {
            graves.retain(|_, (_, until)| *until > now);
            self.swept_at.store(graves.len(), Relaxed);
        }
    }

    pub(crate) fn find(&self, id: &str, now: Timestamp) -> Option<TombstoneReason> {
        let graves = self.graves.read().unwrap_or_else(PoisonError::into_inner);
        graves.get(id).filter(|(_, until)| *until > now).map(|(death, _)| *death)
    }

    /// Returns all tombstones that have not expired, each with its remaining time.
    pub(crate) fn all(&self, now: Timestamp) -> Vec<(SessionId, TombstoneReason, Duration)> {
        let graves = self.graves.read().unwrap_or_else(PoisonError::into_inner);
        let live = graves.iter().filter(|(_, (_, until))| *until > now);
        live.map(|(id, (death, until))| (id.clone(), *death, until.since(now))).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.graves.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn an_id_is_dead_until_its_time_and_the_time_is_never_shortened() {
        let (tombstones, id, start) = (Tombstones::default(), SessionId::new("s1"), Timestamp::START);
        tombstones.bury(&id, TombstoneReason::Replaced, start.after(2 * MINUTE), start);
        tombstones.bury(&id, TombstoneReason::Revoked, start.after(MINUTE), start);
        tombstones.bury(&id, TombstoneReason::Replaced, start.after(MINUTE), start);
        assert_eq!(tombstones.find("s1", start.after(MINUTE)), Some(TombstoneReason::Revoked));
        assert_eq!(tombstones.find("s1", start.after(2 * MINUTE)), None);
        assert_eq!(tombstones.find("s2", start), None);
        assert_eq!(tombstones.all(start.after(MINUTE)), [(id, TombstoneReason::Revoked, MINUTE)]);
    }

    #[test]
    fn expired_ones_do_not_pile_up() {
        let (tombstones, start) = (Tombstones::default(), Timestamp::START);
        for number in 0..20_000u64 {
            let now = start.after(Duration::from_secs(number));
            tombstones.bury(
                &SessionId::new(&format!("s{number}")),
                TombstoneReason::Revoked,
                now.after(MINUTE),
                now,
            );
        }
        assert!(tombstones.len() <= 2049, "{}", tombstones.len());
    }

    #[test]
    fn what_is_told_of_an_end_is_all_there_or_nothing() {
        let told = Some((SessionId::new("a b"), TombstoneReason::Revoked, Duration::from_millis(5)));
        assert_eq!(parse("5 revoked a b"), told);
        for wrong in ["", "5", "5 revoked", "x revoked a", "5 alive a", "-5 revoked a"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn words_are_read_back() {
        for death in [TombstoneReason::Revoked, TombstoneReason::Replaced] {
            assert_eq!(TombstoneReason::parse(death.as_str().as_bytes()), Some(death));
        }
        assert_eq!(TombstoneReason::parse(b""), None);
    }
}
