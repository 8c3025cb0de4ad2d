//! What may happen to servers and vestibules.

use crate::explore::Model;

use super::Rules;
use super::state::{
    Answer, Bounds, Data, Link, OTHER, Other, Phase, REVOKER, SERVERS, Server, State, Third, VESTIBULES,
    Vestibule,
};

const UNDONE: &str = "R3: revoked for good, and a server that may become the primary does not know of it";
const HONOURED: &str = "R3, remembered: a vestibule honours what another one remembers to be over";

pub(crate) struct Failover {
    pub(super) rules: Rules,
    pub(super) third: Third,
    pub(super) other: Other,
    pub(super) bounds: Bounds,
    /// The notes of vestibules have come to all servers before anything happens.
    pub(super) are_notes_copied: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Replicate(usize),
    Cut(usize),
    Attach(usize),
    SentinelsLearnOf(usize),
    Elect(usize),
    /// A replica follows the elected primary from now on.
    Repoint(usize),
    /// A former primary is made a replica.
    Demote(usize),
    Start,
    Crash(usize),
    /// A vestibule finds out who is the primary.
    Find(usize),
    /// It buries what it remembers.
    Tell(usize),
    Note(usize),
    Admit(usize),
    /// It is not told who the others are.
    AdmitUnanswered(usize),
    AskSentinels,
    Bury,
    /// And the other vestibule hears of it.
    BuryHeard,
    Confirm,
    /// The revoker looks whether the primary is still the one.
    Check,
    Answer,
}

impl Failover {
    fn is_news(&self, state: &State, vestibule: usize) -> bool {
        let it = &state.vestibules[vestibule];
        let elected = (state.elected, state.name(state.elected, self.rules));
        it.phase != Phase::Away && (it.at, it.name) != elected
    }
}

impl Model for Failover {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let (name, is_beside) = (1, matches!(self.other, Other::RunsBeside));
        let all = Data { has_tombstone: false, notes: [name, if is_beside { name } else { 0 }] };
        let copied = if self.are_notes_copied { all } else { Data { notes: [0; VESTIBULES], ..all } };
        let is_missing = matches!(self.third, Third::Missing);
        let server = |index: usize| Server {
            data: if index == 0 { all } else { copied },
            is_primary: index == 0,
            follows: 0,
            link: if index == 2 && is_missing { Link::Cut } else { Link::Online },
            is_known: index < 2 || matches!(self.third, Third::Ordinary | Third::Backup),
            is_never_chosen: index == 2 && matches!(self.third, Third::Backup),
            promotions: 0,
        };
        let there = Vestibule { phase: Phase::Admitted, at: 0, name, remembers: false };
        let away = Vestibule { phase: Phase::Away, name: 0, ..there };
        let mut state = State {
            left: self.bounds,
            servers: [0, 1, 2].map(server),
            elected: 0,
            vestibules: [there, if is_beside { there } else { away }],
            followers: 0,
            revocation: None,
            is_started: false,
            answer: None,
        };
        if self.rules.remembers_followers {
            state.see_followers();
        }
        state
    }

    fn steps(&self, state: &State, to: &mut Vec<Step>) {
        let left = state.left;
        for index in 0..SERVERS {
            let server = &state.servers[index];
            if index == 2 && matches!(self.third, Third::Missing) {
                continue;
            }
            let mut may = |step, is_possible: bool| {
                if is_possible {
                    to.push(step);
                }
            };
            let primary = &state.servers[server.follows];
            let lags = server.link == Link::Copying || server.data != primary.data;
            let is_replica = !server.is_primary;
            may(Step::Replicate(index), is_replica && server.link != Link::Cut && primary.is_primary && lags);
            may(Step::Cut(index), is_replica && server.link != Link::Cut && left.cuts > 0);
            may(Step::Attach(index), is_replica && server.link == Link::Cut && left.returns > 0);
            may(Step::SentinelsLearnOf(index), !server.is_known && server.link != Link::Cut);
            may(Step::Elect(index), left.failovers > 0 && is_replica && state.may_be_chosen(index));
            let is_elsewhere = server.follows != state.elected && index != state.elected;
            may(Step::Repoint(index), is_replica && is_elsewhere);
            may(Step::Demote(index), !is_replica && index != state.elected && left.returns > 0);
        }
        for index in 0..VESTIBULES {
            let it = &state.vestibules[index];
            let mut may = |step, is_possible: bool| {
                if is_possible {
                    to.push(step);
                }
            };
            let is_there = state.servers[it.at].is_primary;
            may(Step::Crash(index), it.phase != Phase::Away && index == REVOKER && left.crashes > 0);
            may(Step::Find(index), self.is_news(state, index));
            may(Step::Tell(index), it.phase == Phase::Found && is_there);
            may(Step::Note(index), it.phase == Phase::Told && is_there);
            let waits = it.phase == Phase::Noted && is_there;
            let may_go_on = !self.rules.waits_for_others || state.have_others_told(index);
            may(Step::Admit(index), waits && may_go_on);
            let is_lost = left.lost_answers > 0 && !self.rules.minds_silence;
            may(Step::AdmitUnanswered(index), waits && !may_go_on && is_lost);
        }
        let other = &state.vestibules[OTHER];
        if other.phase == Phase::Away && other.name == 0 {
            to.push(Step::Start);
        }
        Self::revocation_steps(state, to);
    }

    fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Replicate(index) => {
                let from = state.servers[index].follows;
                state.servers[index].data = state.servers[from].data;
                state.servers[index].link = Link::Online;
            }
            Step::Cut(index) => {
                state.left.cuts -= 1;
                state.servers[index].link = Link::Cut;
            }
            Step::Attach(index) => {
                state.left.returns -= 1;
                state.servers[index].link = Link::Copying;
            }
            Step::SentinelsLearnOf(index) => state.servers[index].is_known = true,
            Step::Elect(index) => {
                state.left.failovers -= 1;
                state.elected = index;
                state.servers[index].is_primary = true;
                state.servers[index].promotions += 1;
            }
            Step::Repoint(index) | Step::Demote(index) => {
                state.left.returns -= u8::from(state.servers[index].is_primary);
                let follows = state.elected;
                let server = &mut state.servers[index];
                (server.is_primary, server.follows, server.link) = (false, follows, Link::Copying);
            }
            Step::Start => {
                let name = state.name(state.elected, self.rules);
                let at = state.elected;
                state.vestibules[OTHER] = Vestibule { phase: Phase::Found, at, name, remembers: false };
            }
            Step::Crash(index) => {
                state.left.crashes -= 1;
                state.vestibules[index].phase = Phase::Away;
                state.vestibules[index].remembers = false;
            }
            Step::Find(index) => {
                let name = state.name(state.elected, self.rules);
                let it = &mut state.vestibules[index];
                (it.phase, it.at, it.name) = (Phase::Found, state.elected, name);
            }
            Step::Tell(index) => {
                let it = &mut state.vestibules[index];
                it.phase = Phase::Told;
                state.servers[it.at].data.has_tombstone |= it.remembers;
            }
            Step::Note(index) => {
                let it = &mut state.vestibules[index];
                it.phase = Phase::Noted;
                state.servers[it.at].data.notes[index] = it.name;
            }
            Step::Admit(index) => state.vestibules[index].phase = Phase::Admitted,
            Step::AdmitUnanswered(index) => {
                state.left.lost_answers -= 1;
                state.vestibules[index].phase = Phase::Admitted;
            }
            _ => self.revoke(state, step),
        }
        if self.rules.remembers_followers {
            state.see_followers();
        }
        state.tidy();
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let answer = state.answer?;
        let lacks_it = |index: &usize| !state.servers[*index].data.has_tombstone;
        let may_be = |index: &usize| *index == state.elected || state.may_be_chosen(*index);
        if answer == Answer::Durable && (0..SERVERS).any(|index| lacks_it(&index) && may_be(&index)) {
            return Some(UNDONE);
        }
        let is_remembered = state.vestibules.iter().any(|it| it.phase != Phase::Away && it.remembers);
        (is_remembered && (0..VESTIBULES).any(|index| state.honours(index, self.rules))).then_some(HONOURED)
    }
}
