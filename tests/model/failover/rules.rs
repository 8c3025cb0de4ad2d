//! The rules of the protocol, each of which can be left out.

/// Which rules are kept.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    /// It counts which replicas have confirmed, not how many.
    pub(super) identifies_replicas: bool,
    /// Replicas that have followed the primary may be chosen, whoever knows them.
    pub(super) remembers_followers: bool,
    /// A new primary is not believed before all other vestibules have told it what they remember.
    pub(super) waits_for_others: bool,
    /// Who gets no answer to who the others are asks again.
    pub(super) minds_silence: bool,
    /// A vestibule remembers what it has buried before it looks whether the primary is still the one.
    pub(super) remembers_at_once: bool,
    /// A server that becomes a primary again is told apart from what it was before.
    pub(super) names_promotions: bool,
}

impl Rules {
    /// All of them.
    pub(crate) const ALL: Rules = Rules {
        identifies_replicas: true,
        remembers_followers: true,
        waits_for_others: true,
        minds_silence: true,
        remembers_at_once: true,
        names_promotions: true,
    };
}
