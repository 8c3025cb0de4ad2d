//! Remembers which sessions were recently added to the index of a user's sessions, so that not every lookup
//! causes a write.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::super::SessionId;

/// Maximum number of entries that are remembered. The write is repeated for an evicted one.
const LIMIT: usize = 131_072;
/// The write is repeated after this time, which restores entries that a failover has lost.
const MEMORY: Duration = Duration::from_secs(60);

/// The entries that this process has written recently.
pub(super) struct Notes {
    /// When each entry was written, by the hash of its content.
    made: Cache<u64, Instant>,
    hasher: RandomState,
    /// Number of calls of [`Notes::forget_all`]. It is part of the hash, so that an entry whose write was in
    /// flight during such a call is not remembered: the event that caused the call may have deleted it.
    forgotten: AtomicU64,
}

/// The hash of one index entry.
#[derive(Clone, Copy)]
pub(super) struct Note(u64);

impl Default for Notes {
    fn default() -> Self {
        Notes { made: Cache::new(LIMIT), hasher: RandomState::new(), forgotten: AtomicU64::new(0) }
    }
}

impl Notes {
    /// The entry for session `id` of `user` in this epoch of the layout. After a change of the primaries the
    /// write is repeated, because the new ones may not have the entry.
    pub(super) fn note(&self, user: &str, id: &SessionId, epoch: u64) -> Note {
        Note(self.hasher.hash_one((user, id.expose(), epoch, self.forgotten.load(SeqCst))))
    }

    pub(super) fn is_recent(&self, note: Note) -> bool {
        self.made.get(&note.0).is_some_and(|made| made.elapsed() < MEMORY)
    }

    /// Forgets all entries. To be called when the store may have lost them.
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
