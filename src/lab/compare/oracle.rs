//! Cross-checks lost sessions: the instances' own account against the users' account.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::mode::SessionMode;
use super::model::Oracle;
use super::stage::Life;
use crate::lab::load::LoadResult;
use crate::lab::stub::Entry;

/// The last lines of a killed instance may describe responses that never reached the user.
const UNDER_WAY: usize = 10;

/// The instances' account of a run.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Sessions refused by an instance that did not know them.
    refused: BTreeSet<String>,
    /// Refused sessions whose refusal may not have reached the user.
    perhaps: BTreeSet<String>,
    /// Sessions presented with at least one request.
    presented: BTreeSet<String>,
    ended: BTreeSet<String>,
    /// Sessions granted by an instance that has ended.
    orphaned: BTreeSet<String>,
    /// Orphaned sessions whose instance ended when the users may already have made their final checks.
    late: BTreeSet<String>,
}

/// The result of the cross-check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) oracle: Oracle,
    /// The disagreements, in words.
    pub(super) objections: Vec<String>,
}

impl Account {
    /// Reads the ledgers of all lives of all instances. `over` is when users begin their final session
    /// checks.
    pub(super) fn read(ledgers: &[(Life, String)], over: Option<Instant>) -> Self {
        let mut account = Account::default();
        let mut last_refusals: BTreeMap<String, bool> = BTreeMap::new();
        for (life, text) in ledgers {
            let entries: Vec<Entry> = text.lines().filter_map(Entry::parse).collect();
            let sure =
                if life.ended.is_some() { entries.len().saturating_sub(UNDER_WAY) } else { entries.len() };
            let late = life.ended.zip(over).is_some_and(|(ended, over)| ended > over);
            for (place, entry) in entries.into_iter().enumerate() {
                match entry {
                    Entry::Granted { login, .. } if life.ended.is_some() => {
                        if late {
                            account.late.insert(login.clone());
                        }
                        account.orphaned.insert(login);
                    }
                    Entry::Granted { .. } => {}
                    Entry::Used { login } => _ = account.presented.insert(login),
                    Entry::Refused { login } => {
                        account.presented.insert(login.clone());
                        *last_refusals.entry(login).or_default() |= place < sure;
                    }
                    Entry::Ended { login } => {
                        account.presented.insert(login.clone());
                        account.ended.insert(login);
                    }
                }
            }
        }
        for (login, sure) in last_refusals {
            // After a logout the refusal of the session is no loss.
            if !account.ended.contains(&login) {
                if sure { &mut account.refused } else { &mut account.perhaps }.insert(login);
            }
        }
        account
    }

    /// Compares the account with the losses of the users.
    pub(super) fn judge(&self, load: &LoadResult, mode: SessionMode) -> Judgement {
        let missed: BTreeSet<String> = load.losses.iter().filter_map(|loss| loss.login.clone()).collect();
        let mut objections = Vec::new();
        let nameless = load.losses.len() - missed.len();
        if nameless > 0 {
            objections.push(format!("{nameless} lost sessions have no name, or were missed twice"));
        }
        let mut object = |count: usize, what: &str| {
            if count > 0 {
                objections.push(format!("{count} {what}"));
            }
        };
        let refused_at_all: BTreeSet<String> = self.refused.union(&self.perhaps).cloned().collect();
        object(
            missed.difference(&refused_at_all).count(),
            "sessions were missed by users and refused by no instance",
        );
        object(
            self.refused.difference(&missed).count(),
            "sessions were refused by an instance and missed by nobody",
        );
        if mode == SessionMode::Sticky {
            object(missed.difference(&self.orphaned).count(), "sessions were lost whose instance lived");
            let expected = self.presented.intersection(&self.orphaned);
            let excused = |login: &&String| self.ended.contains(*login) || self.late.contains(*login);
            let kept = expected.filter(|login| !missed.contains(*login) && !excused(login)).count();
            // A logout sent to an instance just when it was killed is known only to the users.
            let unheard = load.sessions.ended.saturating_sub(self.ended.len() as u64);
            let excused = usize::try_from(load.sessions.unclear + unheard).unwrap_or(usize::MAX);
            object(kept.saturating_sub(excused), "sessions were not lost, though their instance had ended");
        }
        let lost = self.refused.union(&self.perhaps.intersection(&missed).cloned().collect()).count() as u64;
        Judgement { oracle: Oracle { lost, agrees: objections.is_empty() }, objections }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::load::Loss;

    fn life(ended: bool, text: &str) -> (Life, String) {
        (Life { ledger: "x".into(), ended: ended.then(Instant::now) }, text.to_owned())
    }

    fn judged(mode: SessionMode, ledgers: &[(Life, String)], missed: &[&str]) -> (u64, Vec<String>) {
        let loss = |login: &&str| Loss { at: 0.0, user: 1, login: Some(login.to_string()), instance: None };
        let load = LoadResult { losses: missed.iter().map(loss).collect(), ..LoadResult::default() };
        let Judgement { oracle, objections } = Account::read(ledgers, None).judge(&load, mode);
        assert_eq!(oracle.agrees, objections.is_empty());
        (oracle.lost, objections)
    }

    #[test]
    fn the_same_sessions_on_both_sides_agree() {
        let ledgers = [life(false, "+a u\n=a\n+b v\n"), life(false, "?a\n?a\n?b\n")];
        assert_eq!(judged(SessionMode::Local, &ledgers, &["a", "b"]), (2, vec![]));
    }

    #[test]
    fn another_session_of_the_same_number_does_not_agree() {
        let ledgers = [life(false, "+a u\n+b v\n"), life(false, "?a\n")];
        let (lost, objections) = judged(SessionMode::Local, &ledgers, &["b"]);
        assert_eq!((lost, objections.len()), (1, 2));
    }

    #[test]
    fn who_has_logged_out_has_lost_nothing() {
        let ledgers = [life(false, "+a u\n-a\n"), life(false, "?a\n")];
        assert_eq!(judged(SessionMode::Local, &ledgers, &[]), (0, vec![]));
    }

    #[test]
    fn sticky_loses_exactly_what_lived_on_an_instance_that_ended() {
        let killed = life(true, "+a u\n=a\n+b v\n=b\n-b\n+c w\n");
        let alive = life(false, "+d x\n=d\n?a\n");
        assert_eq!(judged(SessionMode::Sticky, &[killed.clone(), alive.clone()], &["a"]), (1, vec![]));
        let (_, objections) = judged(SessionMode::Sticky, &[killed.clone(), life(false, "+d x\n=d\n")], &[]);
        assert_eq!(objections, ["1 sessions were not lost, though their instance had ended"]);
        let (_, objections) =
            judged(SessionMode::Sticky, &[killed, life(false, "+d x\n?a\n?d\n")], &["a", "d"]);
        assert_eq!(objections, ["1 sessions were lost whose instance lived"]);
    }

    #[test]
    fn a_logout_that_no_instance_heard_of_is_no_loss() {
        let account = Account::read(&[life(true, "+a u\n=a\n+b v\n=b\n-b\n")], None);
        let mut load = LoadResult::default();
        load.sessions.ended = 2;
        assert!(account.judge(&load, SessionMode::Sticky).oracle.agrees);
        load.sessions.ended = 1;
        assert!(!account.judge(&load, SessionMode::Sticky).oracle.agrees);
    }

    #[test]
    fn an_instance_that_ends_when_the_load_is_over_need_not_be_missed() {
        let ledgers = [life(true, "+a u\n=a\n")];
        let ended = ledgers[0].0.ended.unwrap();
        let agrees = |over: Instant| {
            Account::read(&ledgers, Some(over))
                .judge(&LoadResult::default(), SessionMode::Sticky)
                .oracle
                .agrees
        };
        assert!(agrees(ended - Duration::from_millis(1)));
        assert!(!agrees(ended + Duration::from_millis(1)));
    }

    #[test]
    fn the_last_refusals_of_a_killed_instance_need_not_have_arrived() {
        let ledgers = [life(false, "+a u\n=a\n"), life(true, "?a\n")];
        assert_eq!(judged(SessionMode::Local, &ledgers, &[]), (0, vec![]));
        assert_eq!(judged(SessionMode::Local, &ledgers, &["a"]), (1, vec![]));
        let early = format!("?a\n{}", "=b\n".repeat(UNDER_WAY));
        let ledgers = [life(false, "+a u\n=a\n"), life(true, &early)];
        assert_eq!(judged(SessionMode::Local, &ledgers, &[]).1.len(), 1);
    }
}
