//! The rules of the protocol, each of which can be left out.

/// Which rules are kept.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// A session is noted before it is honoured.
    pub(super) notes_first: bool,
    /// What was read before the mark and noted after it is not honoured.
    pub(super) compares_times: bool,
    /// What was read after the mark is honoured.
    pub(super) spares_later: bool,
    /// What was noted late is buried as well.
    pub(super) passes_twice: bool,
    /// No answer before caches have let go.
    pub(super) waits: bool,
    /// Nor before they have let go of what was noted late: others may have read it after the mark.
    pub(super) waits_again: bool,
    /// A look-up asks the time before it reads.
    pub(super) asks_time_first: bool,
    /// What is noted late is buried only if it is still the user's.
    pub(super) looks_again: bool,
}

impl Rules {
    /// All of them.
    pub(crate) const ALL: Rules = Rules {
        notes_first: true,
        compares_times: true,
        spares_later: true,
        passes_twice: true,
        waits: true,
        waits_again: true,
        asks_time_first: true,
        looks_again: true,
    };
}
