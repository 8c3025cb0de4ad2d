//! Which sessions were noted as a user's a short while ago, so that not every look-up writes.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::super::SessionId;

/// Most notes that are remembered; one that is forgotten is made again.
const LIMIT: usize = 131_072;
/// A note is made again after this long: what a failover has lost is there again by then.
const MEMORY: Duration = Duration::from_secs(60);

/// The notes of a process.
pub(super) struct Notes {
    /// When each was made, by a hash of what it says.
    made: Cache<u64, Instant>,
    hasher: RandomState,
    /// Counts how often all were forgotten. A note that was on its way then is not remembered: it may have been made
    /// before what made us forget.
    forgotten: AtomicU64,
}

/// One note.
#[derive(Clone, Copy)]
pub(super) struct Note(u64);

impl Default for Notes {
    fn default() -> Self {
        Notes { made: Cache::new(LIMIT), hasher: RandomState::new(), forgotten: AtomicU64::new(0) }
    }
}

impl Notes {
    /// That `id` is a session of `user`, under this epoch of the layout: other primaries may not have it.
    pub(super) fn note(&self, user: &str, id: &SessionId, epoch: u64) -> Note {
        Note(self.hasher.hash_one((user, id.expose(), epoch, self.forgotten.load(SeqCst))))
    }

    pub(super) fn is_recent(&self, note: Note) -> bool {
        self.made.get(&note.0).is_some_and(|made| made.elapsed() < MEMORY)
    }

    /// The store may have none of them.
    pub(super) fn forget_all(&self) {
        self.forgotten.fetch_add(1, SeqCst);
        self.made.clear();
    }

    pub(super) fn keep(&self, note: Note) {
        self.made.insert(note.0, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_note_is_recent_for_its_own_words_and_for_a_while() {
        let (notes, id) = (Notes::default(), SessionId::new("s"));
        let note = notes.note("a", &id, 1);
        assert!(!notes.is_recent(note));
        notes.keep(note);
        assert!(notes.is_recent(notes.note("a", &id, 1)));
        for other in
            [notes.note("b", &id, 1), notes.note("a", &SessionId::new("t"), 1), notes.note("a", &id, 2)]
        {
            assert!(!notes.is_recent(other));
        }
        tokio::time::advance(MEMORY).await;
        assert!(!notes.is_recent(note));
    }

    #[test]
    fn a_note_on_its_way_when_all_are_forgotten_is_not_remembered() {
        let (notes, id) = (Notes::default(), SessionId::new("s"));
        let note = notes.note("a", &id, 1);
        notes.forget_all();
        notes.keep(note);
        assert!(!notes.is_recent(notes.note("a", &id, 1)));
    }
}
