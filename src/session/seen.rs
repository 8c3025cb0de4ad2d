//! The sessions that this process has seen live.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Mutex, PoisonError};

use super::SessionId;

/// Ids per generation. At least this many of the latest ids are kept, at most twice as many.
const GENERATION: usize = 65_536;

/// Ids of sessions that were live once: read from the store or created by this process. If the store does not
/// have an id, the session has certainly ended only if the id is in this set. Otherwise it may be stored
/// under another key than the configured one.
///
/// Stores keyed 64-bit hashes in two generations, about 4 MB at most. When the young generation is full, it
/// replaces the old one. A session whose id was dropped is reported as unknown instead of ended, which is
/// safe: the client keeps its cookie.
#[derive(Default)]
pub(super) struct SeenIds {
    hasher: RandomState,
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

impl SeenIds {
    pub(super) fn insert(&self, id: &SessionId) {
        let hash = self.hasher.hash_one(id);
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= GENERATION && !generations.young.contains(&hash) {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(hash);
    }

    pub(super) fn contains(&self, id: &SessionId) -> bool {
        let hash = self.hasher.hash_one(id);
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.contains(&hash) || generations.old.contains(&hash)
    }
}

impl fmt::Debug for SeenIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeenIds")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ids_are_remembered_and_old_ones_make_room() {
        let (seen, id) = (SeenIds::default(), |number: usize| SessionId::new(&number.to_string()));
        for number in 0..5 * GENERATION {
            assert!(!seen.contains(&id(number)));
            seen.insert(&id(number));
            seen.insert(&id(number));
        }
        assert!((4 * GENERATION..5 * GENERATION).all(|number| seen.contains(&id(number))));
        assert!((0..3 * GENERATION).all(|number| !seen.contains(&id(number))));
    }
}
