//! A revocation, from the burial to the answer.

use super::state::{Answer, OTHER, Phase, REVOKER, Revocation, State};
use super::steps::{Failover, Step};

impl Failover {
    /// Whether every server that may become the primary has confirmed.
    fn confirms(&self, state: &State, revocation: &Revocation) -> bool {
        let (at, certain) = (revocation.at, revocation.certain.unwrap_or(0));
        let confirmed = state.confirmed(at);
        if !self.rules.identifies_replicas {
            return confirmed.count_ones() >= certain.count_ones();
        }
        let needed = revocation.attached & !state.never_chosen();
        certain & !revocation.attached == 0 && needed & !confirmed == 0
    }

    fn bury(state: &mut State, is_heard: bool) {
        let Some(revocation) = &mut state.revocation else { return };
        let at = revocation.at;
        revocation.is_buried = true;
        state.servers[at].data.has_tombstone = true;
        let attached = state.attached(at);
        if let Some(revocation) = &mut state.revocation {
            revocation.attached = attached;
        }
        state.vestibules[OTHER].remembers |= is_heard;
    }

    fn check(&self, state: &mut State, revocation: Revocation) {
        let it = &state.vestibules[REVOKER];
        let is_still = (it.at, it.name, it.phase) == (revocation.at, revocation.name, Phase::Admitted);
        // Without an answer nothing was promised.
        state.revocation = is_still.then_some(Revocation { is_checked: true, ..revocation });
        state.vestibules[REVOKER].remembers |= is_still && self.rules.remembers_at_once;
    }

    fn answer(state: &mut State, revocation: Revocation) {
        state.vestibules[REVOKER].remembers = true;
        let is_durable = revocation.is_confirmed == Some(true);
        state.answer = Some(if is_durable { Answer::Durable } else { Answer::Accepted });
    }

    pub(super) fn revocation_steps(state: &State, to: &mut Vec<Step>) {
        let revoker = &state.vestibules[REVOKER];
        let Some(revocation) = &state.revocation else {
            let may_begin = !state.is_started && revoker.phase == Phase::Admitted;
            if may_begin && state.servers[revoker.at].is_primary {
                to.push(Step::AskSentinels);
                to.push(Step::Bury);
            }
            return;
        };
        if revoker.phase == Phase::Away {
            return;
        }
        let is_primary = state.servers[revocation.at].is_primary;
        if revocation.certain.is_none() {
            to.push(Step::AskSentinels);
        }
        if !revocation.is_buried && is_primary {
            to.push(Step::Bury);
            let beside = &state.vestibules[OTHER];
            if beside.at == revocation.at && beside.phase == Phase::Admitted {
                to.push(Step::BuryHeard);
            }
        }
        let is_ready = revocation.is_buried && revocation.certain.is_some();
        match (is_ready, revocation.is_confirmed, revocation.is_checked) {
            (true, None, _) => to.push(Step::Confirm),
            (true, Some(_), false) => to.push(Step::Check),
            (true, Some(_), true) => to.push(Step::Answer),
            _ => (),
        }
    }

    pub(super) fn revoke(&self, state: &mut State, step: Step) {
        let it = state.vestibules[REVOKER];
        let fresh = Revocation {
            at: it.at,
            name: it.name,
            is_buried: false,
            attached: 0,
            certain: None,
            is_confirmed: None,
            is_checked: false,
        };
        state.is_started = true;
        let mut revocation = *state.revocation.get_or_insert(fresh);
        match step {
            Step::AskSentinels => {
                let followers = state.followers & !(1 << revocation.at) & !state.never_chosen();
                revocation.certain = Some(state.heirs(revocation.at) | followers);
                state.revocation = Some(revocation);
            }
            Step::Bury => Self::bury(state, false),
            Step::BuryHeard => Self::bury(state, true),
            Step::Confirm => {
                revocation.is_confirmed = Some(self.confirms(state, &revocation));
                state.revocation = Some(revocation);
            }
            Step::Check => self.check(state, revocation),
            Step::Answer => Self::answer(state, revocation),
            _ => (),
        }
    }
}
