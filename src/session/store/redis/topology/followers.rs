//! Polls the role of the elected primary and of its replicas. A replica that becomes a primary is a sign of a
//! failover.
//!
//! Sentinels learn of a promotion up to a second after the promoted server itself. Until then two servers are
//! primaries, and changes at the new one cause no invalidations at the old one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Host;

use super::super::reply;
use super::State;
use super::failover_candidates::replicas;
use super::poller::{Answer, PollSpec, TopologyPoller};

const INTERVAL: Duration = Duration::from_millis(100);
/// How long the elected primary is trusted after one of its replicas has become a primary, if the sentinels
/// do not elect another. Together with a lease and [`INTERVAL`] it is shorter than the default
/// `max_staleness`.
const GRACE: Duration = Duration::from_millis(400);

/// A rival that has not reported to be a primary for this long is dropped.
const GONE: Duration = Duration::from_secs(2);
/// A rival is dropped if the sentinels have not elected it within this time. They elect a promoted server
/// sooner.
const UNCHOSEN: Duration = Duration::from_secs(10);

/// Polls the roles of the elected primary and of its replicas.
pub(super) struct Followers {
    state: Arc<State>,
    questions: PollSpec,
    observers: HashMap<Host, TopologyPoller>,
    contest: Contest,
}

/// Detects a replica that has become a primary.
#[derive(Debug, Default)]
struct Contest {
    primary: Option<Host>,
    /// Servers that have been replicas of the primary. A primary that has never been one, such as a former
    /// primary that has restarted, is no rival.
    followers: HashSet<Host>,
    /// The replica that has become a primary.
    rival: Option<Rival>,
}

#[derive(Debug)]
struct Rival {
    host: Host,
    since: Instant,
    last: Instant,
}

impl Followers {
    /// Polls the servers around the primary that is [elected](Self::elected). Replies go to `answers`; pass
    /// each to [`note`](Self::note).
    pub(super) fn new(state: &Arc<State>, answers: mpsc::Sender<Answer>) -> Self {
        let doubts = state.doubts.subscribe();
        let questions = PollSpec { question: cmd("ROLE"), interval: INTERVAL, reopen: None, doubts, answers };
        let (observers, contest) = (HashMap::new(), Contest::default());
        Followers { state: Arc::clone(state), questions, observers, contest }
    }

    /// Sets the server that the sentinels have elected.
    pub(super) fn elected(&mut self, primary: &Host) {
        if self.contest.primary.as_ref() != Some(primary) {
            self.contest = Contest { primary: Some(primary.clone()), ..Contest::default() };
            self.state.contested.store(false, Ordering::Release);
            self.observers.clear();
            self.observe([primary.clone()]);
        }
    }

    /// Records the reply of a server to `ROLE`.
    pub(super) fn note(&mut self, answer: Answer) {
        self.contest.lapse(Instant::now());
        if let Ok(role) = answer.said {
            self.note_role(answer.from, &role, answer.asked);
        }
        self.state.contested.store(self.contest.rival.is_some(), Ordering::Release);
    }

    fn note_role(&mut self, from: Host, role: &Value, asked: Instant) {
        if reply::is_primary(role) && self.contest.primary.as_ref() == Some(&from) {
            let replicas = replicas(role);
            self.state.note_followers(&replicas);
            let known = self.state.recent_followers();
            self.observers.retain(|host, _| *host == from || known.contains(host));
            self.observe(replicas);
        }
        self.contest.note(from, reply::is_primary(role), asked);
    }

    /// Until when the elected primary may be trusted: at most `until`, and less if it has a rival.
    pub(super) fn limit(&self, until: Instant) -> Instant {
        self.contest.limit(until)
    }

    fn observe(&mut self, hosts: impl IntoIterator<Item = Host>) {
        for host in hosts {
            let start = || TopologyPoller::start(self.state.connector(&host), self.questions.clone());
            self.observers.entry(host.clone()).or_insert_with(start);
        }
    }
}

impl Contest {
    fn note(&mut self, from: Host, is_primary: bool, at: Instant) {
        if self.primary.as_ref() == Some(&from) {
            return;
        }
        if !is_primary {
            self.rival.take_if(|rival| rival.host == from);
            self.followers.insert(from);
            return;
        }
        match &mut self.rival {
            Some(rival) if rival.host == from => rival.last = at,
            None if self.followers.contains(&from) => {
                tracing::warn!(server = %from, "a replica of the session store calls itself the primary");
                self.rival = Some(Rival { host: from, since: at, last: at });
            }
            _ => (),
        }
    }

    /// Drops a rival that is gone or that the sentinels do not elect. It was detached on purpose, or another
    /// server has its address now.
    fn lapse(&mut self, now: Instant) {
        let is_over = |rival: &mut Rival| rival.last + GONE < now || rival.since + UNCHOSEN < now;
        if let Some(former) = self.rival.take_if(is_over) {
            self.followers.remove(&former.host);
        }
    }

    fn limit(&self, until: Instant) -> Instant {
        self.rival.as_ref().map_or(until, |rival| until.min(rival.since + GRACE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(port: u16) -> Host {
        Host { name: "h".to_owned(), port }
    }

    #[test]
    fn a_follower_that_calls_itself_primary_limits_the_trust_in_the_other() {
        let (now, until) = (Instant::now(), Instant::now() + 10 * GRACE);
        let mut contest = Contest { primary: Some(host(1)), ..Contest::default() };
        contest.note(host(1), true, now);
        contest.note(host(3), true, now);
        assert_eq!(contest.limit(until), until, "one that has come back says nothing");
        contest.note(host(2), false, now);
        contest.note(host(2), true, now);
        contest.note(host(2), true, now + GRACE);
        assert_eq!(contest.limit(until), now + GRACE);
        contest.note(host(2), false, now);
        assert_eq!(contest.limit(until), until, "it follows again");
    }

    #[test]
    fn a_rival_that_has_gone_or_is_not_chosen_is_none_any_more() {
        let (now, until) = (Instant::now(), Instant::now() + 10 * UNCHOSEN);
        let contest = || {
            let mut contest = Contest { primary: Some(host(1)), ..Contest::default() };
            contest.note(host(2), false, now);
            contest.note(host(2), true, now);
            contest
        };
        let (mut gone, mut unchosen) = (contest(), contest());
        gone.lapse(now + GONE);
        assert_eq!(gone.limit(until), now + GRACE);
        gone.lapse(now + GONE + GRACE);
        assert_eq!(gone.limit(until), until);
        unchosen.note(host(2), true, now + UNCHOSEN);
        unchosen.lapse(now + UNCHOSEN + GRACE);
        unchosen.note(host(2), true, now + UNCHOSEN + GRACE);
        assert_eq!(unchosen.limit(until), until, "it says nothing more");
    }
}
