//! `[session.cache]`.

use std::time::Duration;

use crate::config::fault::Fault;
use crate::config::model::SessionCache;
use crate::config::section::Section;
use crate::config::value::{boolean, duration, integer, size};

const MIB: usize = 1 << 20;
/// The lower limit: the connection to the store is tested ten times within max staleness.
const SHORTEST_STALENESS: Duration = Duration::from_millis(100);

/// `None` when the cache is off.
pub(super) fn session_cache(s: &mut Section<'_>) -> Option<SessionCache> {
    let enabled = s.value("enabled", boolean, true);
    let cache = SessionCache {
        max_entries: s.value("max_entries", integer(1..=usize::MAX), 1_000_000),
        max_bytes: s.value("max_bytes", size(MIB..=usize::MAX), 256 * MIB),
        absent_ttl: s.value("absent_ttl", duration, Duration::from_secs(1)),
        max_staleness: s.value("max_staleness", duration, SessionCache::DEFAULT_MAX_STALENESS),
    };
    if cache.max_staleness < SHORTEST_STALENESS {
        s.fault(s.spot("max_staleness"), too_short());
    }
    enabled.then_some(cache)
}

fn too_short() -> Fault {
    Fault::new(
        "sessions are to be kept for less than 100ms without word from the store",
        "the link would count as lost all the time, and the cache would never be used",
        "write \"100ms\" or more, or enabled = false to ask the store for every request",
    )
}
