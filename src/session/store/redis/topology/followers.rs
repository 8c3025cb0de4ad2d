//! The servers that follow a primary: when one of them calls itself a primary, the first may be none any more.
//!
//! Sentinels learn up to a second later than the server itself that it was promoted. Until then two servers call
//! themselves primaries, and what is changed at the new one is not heard of at the old one.

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
/// How long the primary is believed on beside a follower that calls itself one, if the sentinels do not decide. Together
/// with a lease and the interval it is shorter than the default of `max_staleness`.
const GRACE: Duration = Duration::from_millis(400);

/// A rival that has not said so for this long has gone.
const GONE: Duration = Duration::from_secs(2);
/// Sentinels choose a server that was promoted within this time.
const UNCHOSEN: Duration = Duration::from_secs(10);

/// What the primary and its followers say that they are.
pub(super) struct Followers {
    state: Arc<State>,
    questions: PollSpec,
    observers: HashMap<Host, TopologyPoller>,
    contest: Contest,
}

/// Whether a follower has become a primary.
#[derive(Debug, Default)]
struct Contest {
    primary: Option<Host>,
    /// Those that were seen to follow it. A server that was not, such as a former primary that has come back, says
    /// nothing against it.
    followers: HashSet<Host>,
    /// Who else calls itself a primary, since when, and when it last did.
    rival: Option<Rival>,
}

#[derive(Debug)]
struct Rival {
    host: Host,
    since: Instant,
    last: Instant,
}

impl Followers {
    /// Those of the primary that is [told](Self::elected); what they say goes to `answers`.
    pub(super) fn new(state: &Arc<State>, answers: mpsc::Sender<Answer>) -> Self {
        let doubts = state.doubts.subscribe();
        let questions = PollSpec { question: cmd("ROLE"), interval: INTERVAL, reopen: None, doubts, answers };
        let (observers, contest) = (HashMap::new(), Contest::default());
        Followers { state: Arc::clone(state), questions, observers, contest }
    }

    /// Tells which server the sentinels name.
    pub(super) fn elected(&mut self, primary: &Host) {
        if self.contest.primary.as_ref() != Some(primary) {
            self.contest = Contest { primary: Some(primary.clone()), ..Contest::default() };
            self.state.contested.store(false, Ordering::Release);
            self.observers.clear();
            self.observe([primary.clone()]);
        }
    }

    /// Takes note of what one of the servers has said of itself.
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

    /// Until when the primary can be believed, which the sentinels name until then.
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

    /// A rival that has gone, or that the sentinels do not choose for long, is none: it was taken out of service, or its
    /// address belongs to another server by now.
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
