//! The rules of the protocol, each of which can be left out.

/// Which rules are kept.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// Renewals are written over a connection of their own, and all changes are reported.
    pub(super) writes_apart: bool,
    /// What was read before a report arrived is not kept.
    pub(super) drops_invalidated: bool,
    /// A beat counts when it was reported, not when it was written.
    pub(super) waits_for_reports: bool,
    /// The lease is counted from when the beat was sent.
    pub(super) counts_from_sending: bool,
    /// A beat that misses the one before it begins a generation.
    pub(super) minds_missing_beats: bool,
    /// A new connection begins a generation.
    pub(super) begins_anew: bool,
    /// The generation of a reading is that of its departure.
    pub(super) reads_generation_first: bool,
    /// Each look-up makes sure that it reads the data in which the last beat is.
    pub(super) reads_marks: bool,
}

impl Rules {
    /// All but the last, which vestibule does not have.
    pub(crate) const ALL: Rules = Rules {
        writes_apart: true,
        drops_invalidated: true,
        waits_for_reports: true,
        counts_from_sending: true,
        minds_missing_beats: true,
        begins_anew: true,
        reads_generation_first: true,
        reads_marks: false,
    };
}
