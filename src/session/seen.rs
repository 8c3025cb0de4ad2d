//! Which sessions this process has seen alive.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Mutex, PoisonError};

use super::SessionId;

/// As many ids are remembered at least, the latest ones, and twice as many at most.
const GENERATION: usize = 65_536;

/// Ids of sessions that were alive once: read from the store as such, or created. An id that the store does not know
/// names a session that has ended only if it is one of them; others may be there where nobody looks.
///
/// Kept as keyed hashes of 64 bits, at most some 4 MB. Older ones are forgotten: their sessions are then taken for
/// unknown, which is on the safe side.
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
