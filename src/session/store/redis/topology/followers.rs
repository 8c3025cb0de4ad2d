//! The servers that follow a primary: when one of them calls itself a primary, the first may be none any more.
//!
//! Sentinels learn up to a second later than the server itself that it was promoted. Until then two servers call
//! themselves primaries, and what is changed at the new one is not heard of at the old one.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::cmd;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Host;

use super::super::reply;
use super::State;
use super::heirs::replicas;
use super::observer::{Answer, Observer, Questions};

const INTERVAL: Duration = Duration::from_millis(100);
/// How long the primary is believed on beside a follower that calls itself one, if the sentinels do not decide. Together
/// with a lease and the interval it is shorter than the default of `max_staleness`.
const GRACE: Duration = Duration::from_millis(400);

/// What the primary and its followers say that they are.
pub(super) struct Followers {
    state: Arc<State>,
    questions: Questions,
    observers: HashMap<Host, Observer>,
    contest: Contest,
}

/// Whether a follower has become a primary.
#[derive(Debug, Default)]
struct Contest {
    primary: Option<Host>,
    /// Those that were seen to follow it. A server that was not, such as a former primary that has come back, says
    /// nothing against it.
    followers: HashSet<Host>,
    /// Who else calls itself a primary, and since when.
    rival: Option<(Host, Instant)>,
}

impl Followers {
    /// Those of the primary that is [told](Self::elected); what they say goes to `answers`.
    pub(super) fn new(state: &Arc<State>, answers: mpsc::Sender<Answer>) -> Self {
        let doubts = state.doubts.subscribe();
        let questions = Questions { question: cmd("ROLE"), interval: INTERVAL, doubts, answers };
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
        let Ok(role) = answer.said else { return };
        if reply::is_primary(&role) && self.contest.primary.as_ref() == Some(&answer.from) {
            let replicas = replicas(&role);
            self.state.note_followers(&replicas);
            self.observe(replicas);
        }
        self.contest.note(answer.from, reply::is_primary(&role), answer.asked);
        self.state.contested.store(self.contest.rival.is_some(), Ordering::Release);
    }

    /// Until when the primary can be believed, which the sentinels name until then.
    pub(super) fn limit(&self, until: Instant) -> Instant {
        self.contest.limit(until)
    }

    fn observe(&mut self, hosts: impl IntoIterator<Item = Host>) {
        for host in hosts {
            let start = || Observer::start(self.state.connector(&host), self.questions.clone());
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
            self.rival.take_if(|(rival, _)| *rival == from);
            self.followers.insert(from);
        } else if self.followers.contains(&from) && self.rival.is_none() {
            tracing::warn!(server = %from, "a replica of the session store calls itself the primary");
            self.rival = Some((from, at));
        }
    }

    fn limit(&self, until: Instant) -> Instant {
        self.rival.as_ref().map_or(until, |(_, since)| until.min(*since + GRACE))
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
}
