//! What may happen to the session, its look-ups and the revocation.

use crate::explore::Model;

use super::Rules;
use super::state::{Bounds, LOOK_UPS, LookUp, Moment, Outcome, Phase, State};

const HONOURED: &str = "honoured: a session that was honoured before its user was revoked outlives that";
const READ: &str = "read: a session that was read before its user was revoked is honoured after that";
const LATE: &str = "late: a session that was found late outlives the revocation of its user";
const SPARED: &str = "later: a session that was first looked up after its user was revoked was ended";
const WRONGED: &str = "other: a session of somebody else was ended";

pub(crate) struct Users {
    pub(super) rules: Rules,
    pub(super) bounds: Bounds,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    AskTime(usize),
    Read(usize),
    Note(usize),
    Honour(usize),
    /// The vestibule ends what it was told to have read too early.
    EndOwn(usize),
    Crash(usize),
    Failover,
    ChangeUser,
    RevokerAsksTime,
    Mark,
    Bury,
    Wait,
    SecondPassAndAnswer,
}

impl Users {
    fn note(&self, state: &mut State, index: usize) {
        let time = state.look_ups[index].time;
        state.is_noted = true;
        let Some(time) = time else { return };
        let is_marked = state.mark == Some(time.server);
        let is_early = !time.is_after && self.rules.compares_times;
        let is_revoked = match self.rules.spares_later {
            true => is_marked && is_early,
            false => state.mark.is_some(),
        };
        state.look_ups[index].outcome = if is_revoked { Outcome::Revoked } else { Outcome::Noted };
        state.is_late |= is_revoked;
        state.was_late |= is_revoked && state.phase < Phase::Answered;
    }

    fn look_up_steps(&self, state: &State, index: usize, to: &mut Vec<Step>) {
        let look_up = &state.look_ups[index];
        let mut may = |step, is_possible: bool| {
            if is_possible {
                to.push(step);
            }
        };
        let (is_timed, is_read) = (look_up.time.is_some(), look_up.read.is_some());
        let (time_may, read_may) = match self.rules.asks_time_first {
            true => (!is_timed, is_timed && !is_read),
            false => (is_read && !is_timed, !is_read),
        };
        let is_open = look_up.outcome == Outcome::Open;
        may(Step::AskTime(index), is_open && time_may);
        may(Step::Read(index), is_open && read_may && !state.is_ended);
        may(Step::Note(index), is_open && is_timed && is_read);
        let may_honour = match look_up.outcome {
            Outcome::Noted => true,
            Outcome::Open => !self.rules.notes_first && is_timed && is_read,
            _ => false,
        };
        may(Step::Honour(index), may_honour && !look_up.is_honoured);
        may(Step::EndOwn(index), look_up.outcome == Outcome::Revoked && !state.is_ended);
        may(Step::Crash(index), state.left.crashes > 0 && look_up.outcome != Outcome::Dead);
    }
}

impl Model for Users {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        State {
            left: self.bounds,
            server: 0,
            is_theirs: true,
            is_ended: false,
            is_noted: false,
            is_late: false,
            mark: None,
            phase: Phase::Before,
            timed_by: 0,
            is_listed: false,
            look_ups: [LookUp::NEW; LOOK_UPS],
            was_honoured: false,
            was_looked_up: false,
            was_late: false,
            is_wronged: false,
        }
    }

    fn steps(&self, state: &State, to: &mut Vec<Step>) {
        (0..LOOK_UPS).for_each(|index| self.look_up_steps(state, index, to));
        if state.left.failovers > 0 {
            to.push(Step::Failover);
        }
        if state.left.changes > 0 && !state.is_ended {
            to.push(Step::ChangeUser);
        }
        match state.phase {
            Phase::Before => to.push(Step::RevokerAsksTime),
            Phase::Timed => to.push(Step::Mark),
            Phase::Marked => to.push(Step::Bury),
            Phase::Buried => to.push(Step::Wait),
            Phase::Waited => to.push(Step::SecondPassAndAnswer),
            Phase::Answered => (),
        }
    }

    fn take(&self, state: &mut State, step: Step) {
        let now = Moment { server: state.server, is_after: state.phase > Phase::Before };
        match step {
            Step::AskTime(index) => {
                state.look_ups[index].time = Some(now);
                state.was_looked_up |= state.phase < Phase::Marked;
            }
            Step::Read(index) => {
                state.look_ups[index].read = Some(now);
                state.was_looked_up |= state.phase < Phase::Marked;
                if !state.is_theirs {
                    state.look_ups[index].outcome = Outcome::Other;
                }
            }
            Step::Note(index) => self.note(state, index),
            Step::Honour(index) => {
                state.look_ups[index].is_honoured = true;
                state.was_honoured |= state.phase == Phase::Before;
            }
            Step::EndOwn(index) => {
                state.look_ups[index] = LookUp::NEW;
                state.end(self.rules.looks_again);
            }
            Step::Crash(index) => {
                state.left.crashes -= 1;
                state.look_ups[index] = LookUp { outcome: Outcome::Dead, ..LookUp::NEW };
            }
            Step::Failover => {
                state.left.failovers -= 1;
                state.server += 1;
            }
            Step::ChangeUser => {
                state.left.changes -= 1;
                state.is_theirs = false;
            }
            Step::RevokerAsksTime => (state.phase, state.timed_by) = (Phase::Timed, state.server),
            Step::Mark => {
                (state.phase, state.mark) = (Phase::Marked, Some(state.timed_by));
                state.is_listed = state.is_noted;
            }
            Step::Bury => {
                state.phase = Phase::Buried;
                if state.is_listed {
                    state.end(true);
                }
            }
            Step::Wait => {
                state.phase = Phase::Waited;
                if self.rules.waits {
                    state.let_go();
                }
            }
            Step::SecondPassAndAnswer => {
                state.phase = Phase::Answered;
                if state.is_late && self.rules.passes_twice {
                    state.end(self.rules.looks_again);
                    if self.rules.waits_again {
                        state.let_go();
                    }
                }
            }
        }
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        if state.is_wronged {
            return Some(WRONGED);
        }
        if state.is_ended && !state.was_looked_up {
            return Some(SPARED);
        }
        if state.phase < Phase::Answered || !state.is_theirs {
            return None;
        }
        let honoured = state.look_ups.iter().filter(|look_up| look_up.is_honoured);
        for look_up in honoured {
            if state.was_honoured {
                return Some(HONOURED);
            }
            if look_up.read.is_some_and(|read| !read.is_after) {
                return Some(READ);
            }
            if state.was_late {
                return Some(LATE);
            }
        }
        None
    }
}
