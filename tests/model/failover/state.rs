//! Servers and vestibules at one moment.

use super::Rules;

pub(super) const SERVERS: usize = 3;
pub(super) const VESTIBULES: usize = 2;
/// The vestibule that revokes.
pub(super) const REVOKER: usize = 0;
pub(super) const OTHER: usize = 1;

/// How often things happen at most.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    pub(super) failovers: u8,
    /// Replicas that lose their primary.
    pub(super) cuts: u8,
    /// Replicas that find their primary again, and primaries that become replicas.
    pub(super) returns: u8,
    /// Vestibules that end without a word.
    pub(super) crashes: u8,
    /// Answers to who the other vestibules are.
    pub(super) lost_answers: u8,
}

/// What is special about the third server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Third {
    Ordinary,
    /// It is never chosen.
    Backup,
    /// The sentinels have not heard of it yet.
    Unlisted,
    /// There is none.
    Missing,
}

/// The vestibule that does not revoke.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Other {
    RunsBeside,
    StartsLater,
}

/// What a server has of the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Data {
    pub(super) has_tombstone: bool,
    /// The name of the primary that each vestibule has told, as it has noted.
    pub(super) notes: [u8; VESTIBULES],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Link {
    Cut,
    /// Attached, and still being copied to.
    Copying,
    Online,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) data: Data,
    pub(super) is_primary: bool,
    pub(super) follows: usize,
    pub(super) link: Link,
    /// The sentinels know it.
    pub(super) is_known: bool,
    pub(super) is_never_chosen: bool,
    /// How often it was made a primary.
    pub(super) promotions: u8,
}

/// How far a vestibule has come with the primary that it believes in.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// It is not there.
    Away,
    Found,
    Told,
    Noted,
    Admitted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Vestibule {
    pub(super) phase: Phase,
    /// The primary, and what it was called when it was found.
    pub(super) at: usize,
    pub(super) name: u8,
    pub(super) remembers: bool,
}

/// A revocation under way.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Revocation {
    /// The server at which it was buried, and what it was called.
    pub(super) at: usize,
    pub(super) name: u8,
    pub(super) is_buried: bool,
    /// Replicas attached when it was buried; a bit each.
    pub(super) attached: u8,
    /// Those that sentinels may choose, and those that were known as followers.
    pub(super) certain: Option<u8>,
    pub(super) is_confirmed: Option<bool>,
    pub(super) is_checked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Durable,
    Accepted,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(super) left: Bounds,
    pub(super) servers: [Server; SERVERS],
    pub(super) elected: usize,
    pub(super) vestibules: [Vestibule; VESTIBULES],
    /// Replicas that the revoker has seen following; a bit each.
    pub(super) followers: u8,
    pub(super) revocation: Option<Revocation>,
    pub(super) is_started: bool,
    pub(super) answer: Option<Answer>,
}

impl State {
    /// What a server is called as a primary; never zero.
    pub(super) fn name(&self, server: usize, rules: Rules) -> u8 {
        let promotions = if rules.names_promotions { self.servers[server].promotions } else { 0 };
        1 + promotions * 4 + server as u8
    }

    pub(super) fn is_attached(&self, replica: usize, primary: usize) -> bool {
        let server = &self.servers[replica];
        !server.is_primary && server.follows == primary && server.link != Link::Cut
    }

    pub(super) fn attached(&self, primary: usize) -> u8 {
        (0..SERVERS).filter(|one| self.is_attached(*one, primary)).fold(0, |mask, one| mask | 1 << one)
    }

    /// Replicas that are attached and have confirmed the tombstone.
    pub(super) fn confirmed(&self, primary: usize) -> u8 {
        let has_it = |one: &usize| {
            let server = &self.servers[*one];
            self.is_attached(*one, primary) && server.link == Link::Online && server.data.has_tombstone
        };
        (0..SERVERS).filter(has_it).fold(0, |mask, one| mask | 1 << one)
    }

    /// Those that sentinels may choose in the place of this primary.
    pub(super) fn heirs(&self, primary: usize) -> u8 {
        let may_be = |one: &usize| *one != primary && self.may_be_chosen(*one);
        (0..SERVERS).filter(may_be).fold(0, |mask, one| mask | 1 << one)
    }

    pub(super) fn never_chosen(&self) -> u8 {
        let never = |one: &usize| self.servers[*one].is_known && self.servers[*one].is_never_chosen;
        (0..SERVERS).filter(never).fold(0, |mask, one| mask | 1 << one)
    }

    pub(super) fn may_be_chosen(&self, server: usize) -> bool {
        self.servers[server].is_known && !self.servers[server].is_never_chosen
    }

    /// Whether what a vestibule gets to know of the session at the elected primary is that it goes on.
    pub(super) fn honours(&self, vestibule: usize, rules: Rules) -> bool {
        let it = &self.vestibules[vestibule];
        let server = &self.servers[it.at];
        let is_there =
            it.phase == Phase::Admitted && (it.at, it.name) == (self.elected, self.name(it.at, rules));
        is_there && !it.remembers && !server.data.has_tombstone
    }

    /// Whether all other vestibules that live have noted that they have told the primary.
    pub(super) fn have_others_told(&self, vestibule: usize) -> bool {
        let it = &self.vestibules[vestibule];
        let notes = self.servers[it.at].data.notes;
        (0..VESTIBULES).all(|other| {
            let is_gone = self.vestibules[other].phase == Phase::Away;
            other == vestibule || is_gone || notes[other] == 0 || notes[other] == it.name
        })
    }

    pub(super) fn see_followers(&mut self) {
        let at = self.vestibules[REVOKER].at;
        self.followers |= self.attached(at);
    }

    /// Makes states equal that differ only in what matters no more.
    pub(super) fn tidy(&mut self) {
        if self.answer.is_some() {
            (self.revocation, self.followers) = (None, 0);
        }
    }
}
