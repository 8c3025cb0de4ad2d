//! What may happen to the session, and what the cache knows of it.

use crate::explore::Model;

use super::Rules;
use super::state::{
    ABSENT, Beat, Bounds, CHANGED, CONTENTS, CURRENT, ELSEWHERE, FIRST, LEASE, LookUp, Report, State, UNSAID,
    Writer,
};

const UNPROVEN: &str = "R1: told is what was replaced before a beat was sent that has been reported";
const STALE: &str = "R2: told is what was replaced a lease ago";
const GONE: &str = "R4: told is that there is no session, which there has been for a lease";

pub(crate) struct Cache {
    pub(super) rules: Rules,
    pub(super) bounds: Bounds,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    OtherChangesUser,
    OtherDeletes,
    Flush,
    SwapDb,
    SendRenewal,
    RunRenewal,
    SendBeat,
    RunBeat,
    /// Ends the turn: reports are on their way, those of sessions first.
    EndTurn,
    /// Likewise, those of beats first.
    EndTurnBeatsFirst,
    Hear,
    /// The beat has been replied to and heard.
    ExtendLease,
    Ask,
    Read,
    Land,
    AbandonLookUp,
    Tick,
    LoseReportsFromNowOn,
    LoseConnection,
    Connect,
}

impl Model for Cache {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let mut ages = [LEASE; CONTENTS];
        ages[usize::from(FIRST)] = CURRENT;
        State {
            left: self.bounds,
            data: [FIRST, ELSEWHERE],
            database: 0,
            next: CHANGED,
            ages,
            changed_by: None,
            has_beaten: false,
            beat_in: Some(0),
            renewing: false,
            heard: true,
            reports: Vec::new(),
            linked: true,
            lease: 0,
            beat: None,
            cached: None,
            look_up: None,
            proven: 1 << FIRST,
        }
    }

    fn steps(&self, state: &State, to: &mut Vec<Step>) {
        let mut may = |step, is_possible: bool| {
            if is_possible {
                to.push(step);
            }
        };
        let left = state.left;
        may(Step::OtherChangesUser, left.changes > 0);
        may(Step::OtherDeletes, left.changes > 0 && state.current() != ABSENT);
        may(Step::Flush, left.faults > 0 && state.current() != ABSENT);
        may(Step::SwapDb, left.swaps > 0);
        let uses = state.is_fresh() && state.cached != Some(ABSENT);
        may(Step::SendRenewal, left.renewals > 0 && uses && !state.renewing);
        may(Step::RunRenewal, state.renewing);
        may(Step::SendBeat, state.linked && state.beat.is_none());
        if let Some(beat) = &state.beat {
            may(Step::RunBeat, beat.run.is_none());
            may(Step::ExtendLease, beat.run.is_some() && (beat.heard || !self.rules.waits_for_reports));
        }
        let is_turn = state.changed_by.is_some() || state.has_beaten || state.ages.contains(&UNSAID);
        may(Step::EndTurn, is_turn);
        may(Step::EndTurnBeatsFirst, state.changed_by.is_some() && state.has_beaten);
        may(Step::Hear, !state.reports.is_empty());
        match &state.look_up {
            None => may(Step::Ask, !state.is_fresh()),
            Some(look_up) => {
                may(Step::Read, look_up.read.is_none());
                may(Step::Land, look_up.read.is_some());
                may(Step::AbandonLookUp, true);
            }
        }
        let is_timed = state.lease > 0 || state.ages.iter().any(|age| *age < LEASE);
        may(Step::Tick, is_timed || state.beat.is_some_and(|beat| beat.age < LEASE));
        may(Step::LoseReportsFromNowOn, left.faults > 0 && state.linked && state.heard);
        may(Step::LoseConnection, state.linked && (left.faults > 0 || !state.heard));
        may(Step::Connect, !state.linked);
    }

    fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::OtherChangesUser => {
                state.left.changes -= 1;
                state.put(state.next);
                state.next += 1;
                state.changed_by = Some(Writer::Other);
            }
            Step::OtherDeletes => {
                state.left.changes -= 1;
                state.put(ABSENT);
                state.changed_by = Some(Writer::Other);
            }
            Step::Flush => {
                state.left.faults -= 1;
                state.beat_in = state.beat_in.filter(|database| *database != state.database);
                state.put(ABSENT);
                state.report(Report::Flushed);
            }
            Step::SwapDb => {
                state.left.swaps -= 1;
                state.database = 1 - state.database;
                state.note_current();
            }
            Step::SendRenewal => {
                state.left.renewals -= 1;
                state.renewing = true;
            }
            Step::RunRenewal => {
                state.renewing = false;
                if state.current() != ABSENT {
                    let writer = if self.rules.writes_apart { Writer::Ours } else { Writer::Listener };
                    state.changed_by = Some(writer);
                }
            }
            Step::SendBeat => {
                let since = state.current_contents();
                state.beat = Some(Beat { age: 0, run: None, heard: false, since });
            }
            Step::RunBeat => {
                let found = state.beat_in == Some(state.database);
                state.beat_in = Some(state.database);
                state.has_beaten = true;
                state.change_beat(|beat| beat.run = Some(found));
            }
            Step::EndTurn => state.end_turn(self.rules, false),
            Step::EndTurnBeatsFirst => state.end_turn(self.rules, true),
            Step::Hear => state.hear(),
            Step::ExtendLease => state.extend_lease(self.rules),
            Step::Ask => state.look_up = Some(LookUp::NEW),
            Step::Read => {
                let (read, is_marked) = (state.current(), state.beat_in == Some(state.database));
                let look_up = state.look_up.unwrap_or(LookUp::NEW);
                state.look_up = Some(LookUp { read: Some(read), is_marked, ..look_up });
            }
            Step::Land => state.land(self.rules),
            Step::AbandonLookUp => state.look_up = None,
            Step::Tick => state.tick(),
            Step::LoseReportsFromNowOn => {
                state.left.faults -= 1;
                state.heard = false;
            }
            Step::LoseConnection => {
                state.left.faults -= u8::from(state.heard);
                state.lose_connection();
            }
            Step::Connect => state.connect(self.rules),
        }
        state.tidy(self.rules);
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let told = state.cached.filter(|_| state.is_fresh())?;
        if state.ages[usize::from(told)] == LEASE {
            return Some(if told == ABSENT { GONE } else { STALE });
        }
        (state.proven & 1 << told == 0).then_some(UNPROVEN)
    }
}
