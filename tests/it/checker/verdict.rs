//! Decides from a history alone what of the promises held.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use super::history::{Event, Moment, Name, Told, What, Whom};
use super::life::{Epoch, Life};

/// What is promised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// How late a change may be while nothing is wrong.
    pub(super) prompt: Duration,
    /// How late it may be when something is.
    pub(super) max_staleness: Duration,
    /// What a busy machine may add to either.
    pub(super) slack: Duration,
    /// What was known before an outage may be gone on with during it.
    pub(super) goes_on: bool,
}

/// About what an answer of the store may take.
const MUCH: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    /// R1: changes count at once while nothing is wrong.
    Prompt,
    /// R2: changes count within `max_staleness`, whatever is wrong.
    Bounded,
    /// R3: what was answered "revoked" stays so.
    Revoked,
    /// R4: a live session is never taken for an ended one.
    Unknown,
    /// Nobody is told a name that the session never had.
    Identity,
    /// When nothing is wrong any more, nobody is refused.
    Recovery,
}

#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) promise: Promise,
    pub(super) session: Name,
    /// The answer that broke it.
    pub(super) event: Event,
    /// Since when that should not have been said.
    pub(super) since: Option<Moment>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { promise, session, event, since } = self;
        write!(f, "{promise:?} of {session}: {event}")?;
        match since {
            Some(since) => write!(f, ", {:.1?} late", event.begun.saturating_sub(*since)),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) violations: Vec<Violation>,
    /// Of changes while nothing was wrong, each at each vestibule, and of the others.
    pub(super) late: Vec<Duration>,
    pub(super) late_in_faults: Vec<Duration>,
    /// From the end of each fault to the last refusal before the next.
    pub(super) recoveries: Vec<Duration>,
    pub(super) asked: usize,
    pub(super) refused: usize,
    pub(super) changes: usize,
    pub(super) revoked: usize,
    pub(super) faults: BTreeMap<String, usize>,
    /// Sessions that the store changed by itself.
    pub(super) surprises: usize,
    /// Answers that took a session for an ended one because an old primary did not have it yet, which is so for
    /// less than `max_staleness` after a failover; and those with a revoked session from one who was cut off when it
    /// was revoked, where what was known goes on in an outage.
    pub(super) excused: usize,
}

/// All that concerns one session: what changed it, and who used it.
#[derive(Debug, Default)]
struct File<'a> {
    changes: Vec<&'a Event>,
    asked: Vec<&'a Event>,
}

/// `history` is in the order of its beginnings. `kept`: how much of this time the machine kept from those who are
/// judged.
pub(super) fn judge(history: &[Event], terms: &Terms, kept: &dyn Fn(Moment, Moment) -> Duration) -> Verdict {
    let mut files: HashMap<&Name, File<'_>> = HashMap::new();
    let mut for_all = Vec::new();
    for event in history {
        match &event.what {
            What::Asked { session, .. } => files.entry(session).or_default().asked.push(event),
            What::Wrote { session, .. }
            | What::Found { session, .. }
            | What::Revoked { whom: Whom::Session(session), .. } => {
                files.entry(session).or_default().changes.push(event);
            }
            _ => for_all.push(event),
        }
    }
    let mut judge = Judge {
        terms,
        kept,
        disturbed: disturbances(history),
        failovers: failovers(history),
        verdict: Verdict::default(),
    };
    judge.count(history);
    for (session, file) in files {
        let mut changes = [&for_all[..], &file.changes].concat();
        changes.sort_by_key(|event| event.begun); // of equal ones that of all sessions stays the first
        let life = Life::of(session, &changes, &file.asked);
        judge.verdict.surprises += life.surprises;
        judge.hear(session, &life, &file.asked);
    }
    judge.recover(history);
    judge.verdict.violations.sort_by_key(|violation| violation.event.begun);
    judge.verdict
}

/// When something was wrong.
fn disturbances(history: &[Event]) -> Vec<(Moment, Moment)> {
    let is_fault = |event: &&Event| matches!(event.what, What::Fault(_) | What::Failover);
    history.iter().filter(is_fault).map(|event| (event.begun, event.ended)).collect()
}

fn failovers(history: &[Event]) -> Vec<(Moment, Moment)> {
    let failovers = history.iter().filter(|event| event.what == What::Failover);
    failovers.map(|event| (event.begun, event.ended)).collect()
}

struct Judge<'a> {
    terms: &'a Terms,
    kept: &'a dyn Fn(Moment, Moment) -> Duration,
    disturbed: Vec<(Moment, Moment)>,
    failovers: Vec<(Moment, Moment)>,
    verdict: Verdict,
}

impl Judge<'_> {
    fn count(&mut self, history: &[Event]) {
        let verdict = &mut self.verdict;
        for event in history {
            match &event.what {
                What::Asked { told, .. } => {
                    verdict.asked += 1;
                    verdict.refused += usize::from(*told == Told::Refused);
                }
                What::Wrote { .. } => verdict.changes += 1,
                What::Revoked { status, .. } => verdict.revoked += usize::from(*status == Some(200)),
                What::Fault(kind) => *verdict.faults.entry(kind.clone()).or_default() += 1,
                _ => {}
            }
        }
    }

    /// Judges what everybody was told who used a session.
    fn hear(&mut self, session: &Name, life: &Life, asked: &[&Event]) {
        // By the number of the epoch and of the vestibule.
        let mut late: BTreeMap<(usize, usize), (Moment, Moment)> = BTreeMap::new();
        for event in asked {
            let What::Asked { vestibule, told, .. } = &event.what else { continue };
            let user = match told {
                Told::Refused => continue,
                Told::User(user) => Some(user),
                Told::Nobody | Told::CookieCleared => None,
            };
            let blame = |promise, since| Violation {
                promise,
                session: session.clone(),
                event: (*event).clone(),
                since,
            };
            // Who goes on with what was known cannot know of a revocation while it is cut off.
            let is_excused = |dead| self.terms.goes_on && !self.is_too_late(dead, event.begun);
            if let Some(dead) = life.dead.filter(|dead| user.is_some() && event.begun >= *dead) {
                if is_excused(dead) {
                    self.verdict.excused += 1;
                    continue;
                }
                self.verdict.violations.push(blame(Promise::Revoked, Some(dead)));
                continue;
            }
            match last_epoch(&life.epochs, user, event) {
                None => self.verdict.violations.push(blame(Promise::Identity, None)),
                Some((_, Epoch { until: None, .. })) => {}
                Some((number, Epoch { until: Some(until), is_unseen, .. })) => {
                    let is_late = event.begun > *until;
                    let is_new = is_late && *is_unseen;
                    let is_excused = is_new && self.had_failed_over(*until);
                    self.verdict.excused += usize::from(is_excused);
                    if is_new && !is_excused || is_late && self.is_too_late(*until, event.begun) {
                        let promise = self.promise_broken(user, *until, event.begun);
                        self.verdict.violations.push(blame(promise, Some(*until)));
                    }
                    let last = late.entry((number, *vestibule)).or_insert((*until, *until));
                    last.1 = last.1.max(event.begun);
                }
            }
        }
        for (until, last) in late.into_values() {
            let disturbed = self.is_disturbed(until, last);
            let Verdict { late, late_in_faults, .. } = &mut self.verdict;
            if disturbed { late_in_faults } else { late }.push(last.saturating_sub(until));
        }
    }

    fn promise_broken(&self, user: Option<&Name>, until: Moment, begun: Moment) -> Promise {
        match user {
            None => Promise::Unknown,
            Some(_) if self.is_disturbed(until, begun) => Promise::Bounded,
            Some(_) => Promise::Prompt,
        }
    }

    fn is_too_late(&self, until: Moment, begun: Moment) -> bool {
        let disturbed = self.is_disturbed(until, begun);
        let bound = if disturbed { self.terms.max_staleness } else { self.terms.prompt };
        let mut late = begun - until;
        if self.terms.goes_on {
            late = late.saturating_sub(self.time_disturbed(until, begun));
        }
        // At once is as soon as there is a processor; within `max_staleness` is so whatever the machine does.
        if !disturbed
            && late > bound + self.terms.slack
            && late <= self.terms.max_staleness + self.terms.slack
        {
            late = late.saturating_sub((self.kept)(until, begun));
        }
        late > bound + self.terms.slack
    }

    fn had_failed_over(&self, at: Moment) -> bool {
        let grace = self.terms.max_staleness;
        self.failovers.iter().any(|(begun, ended)| *begun <= at && at <= *ended + grace)
    }

    /// Whether something was wrong meanwhile, or had just been.
    fn is_disturbed(&self, from: Moment, to: Moment) -> bool {
        self.disturbed.iter().any(|(begun, ended)| *begun <= to && *ended + self.terms.max_staleness >= from)
    }

    /// How long something was wrong, or had just been.
    fn time_disturbed(&self, from: Moment, to: Moment) -> Duration {
        let (mut time, mut reached) = (Duration::ZERO, from);
        for (begun, ended) in &self.disturbed {
            let end = (*ended + self.terms.max_staleness).min(to);
            let begin = (*begun).max(reached);
            time += end.saturating_sub(begin);
            reached = reached.max(end);
        }
        time
    }

    fn recover(&mut self, history: &[Event]) {
        let healed = history.iter().find(|event| event.what == What::Healed).map(|event| event.ended);
        let mut last = vec![None; self.disturbed.len()];
        for event in history {
            let What::Asked { session, told: Told::Refused, .. } = &event.what else { continue };
            // A store that had no processor for so long is as good as none.
            let had_none =
                || (self.kept)(event.begun.saturating_sub(event.ended - event.begun), event.ended) >= MUCH;
            if healed.is_some_and(|healed| event.begun >= healed) && !had_none() {
                self.verdict.violations.push(Violation {
                    promise: Promise::Recovery,
                    session: session.clone(),
                    event: event.clone(),
                    since: healed,
                });
            }
            // Those that the next fault met are of that one.
            let before = self.disturbed.partition_point(|(begun, _)| *begun <= event.ended);
            if let Some(index) = before.checked_sub(1) {
                last[index] = Some(event.begun);
            }
        }
        for (last, (_, ended)) in last.into_iter().zip(&self.disturbed) {
            self.verdict.recoveries.extend(last.map(|last: Moment| last.saturating_sub(*ended)));
        }
    }
}

/// The epoch of this user that ended last, of those that had begun when the answer was there.
fn last_epoch<'a>(epochs: &'a [Epoch], user: Option<&Name>, answer: &Event) -> Option<(usize, &'a Epoch)> {
    let own = epochs
        .iter()
        .enumerate()
        .filter(|(_, epoch)| epoch.user.as_ref() == user && epoch.from <= answer.ended);
    own.max_by_key(|(_, epoch)| epoch.until.unwrap_or(Moment::MAX))
}
