//! The store, the revocation and the look-ups at one moment.

pub(super) const LOOK_UPS: usize = 3;

/// How often things happen at most.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Vestibules that end without a word.
    pub(super) crashes: u8,
    pub(super) failovers: u8,
    /// The session gets another user.
    pub(super) changes: u8,
}

/// How far the revocation has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    Before,
    Timed,
    Marked,
    Buried,
    Waited,
    Answered,
}

/// How far a look-up has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    Open,
    Noted,
    /// The store has said that it was read before the mark.
    Revoked,
    /// It is no session of the user.
    Other,
    /// Its vestibule has gone.
    Dead,
}

/// When something happened at which server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Moment {
    pub(super) server: u8,
    /// The revocation had its time already.
    pub(super) is_after: bool,
}

/// The look-up of one vestibule.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LookUp {
    pub(super) time: Option<Moment>,
    pub(super) read: Option<Moment>,
    pub(super) outcome: Outcome,
    /// Its vestibule tells others that the session goes on.
    pub(super) is_honoured: bool,
}

impl LookUp {
    pub(super) const NEW: LookUp =
        LookUp { time: None, read: None, outcome: Outcome::Open, is_honoured: false };
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(super) left: Bounds,
    pub(super) server: u8,
    pub(super) is_theirs: bool,
    pub(super) is_ended: bool,
    /// It was noted as the user's.
    pub(super) is_noted: bool,
    /// It was noted as one that had been read before the mark.
    pub(super) is_late: bool,
    /// The server whose time the mark is.
    pub(super) mark: Option<u8>,
    pub(super) phase: Phase,
    pub(super) timed_by: u8,
    /// It was noted when the user was marked.
    pub(super) is_listed: bool,
    pub(super) look_ups: [LookUp; LOOK_UPS],
    /// It was honoured before the revocation began.
    pub(super) was_honoured: bool,
    /// A look-up had begun when the user was marked.
    pub(super) was_looked_up: bool,
    /// It was noted late before the second pass.
    pub(super) was_late: bool,
    /// It was ended when it was another user's.
    pub(super) is_wronged: bool,
}

impl State {
    pub(super) fn end(&mut self, only_theirs: bool) {
        if self.is_ended || only_theirs && !self.is_theirs {
            return;
        }
        (self.is_ended, self.is_wronged) = (true, !self.is_theirs);
    }

    /// Caches have let go of what has ended, and look-ups that read it before ask again.
    pub(super) fn let_go(&mut self) {
        if !self.is_ended {
            return;
        }
        for look_up in &mut self.look_ups {
            if look_up.outcome != Outcome::Dead {
                *look_up = LookUp::NEW;
            }
        }
    }
}
