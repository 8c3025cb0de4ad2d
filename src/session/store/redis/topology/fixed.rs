//! Follows the primary among a fixed set of hosts, which may be a single one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::config::Host;

use super::super::reply;
use super::State;
use super::failover_candidates::replicas;
use super::poller::{Answer, PollSpec, Reopen, TopologyPoller};
use super::snapshot::Slots;

const INTERVAL: Duration = Duration::from_millis(150);
/// Interval at which an address is checked over a new connection.
const LOOK_AGAIN: Duration = Duration::from_millis(380);
/// Minimum pause between two checks, however many callers request one.
const PAUSE: Duration = Duration::from_millis(20);

/// The role that a host reports.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Master,
    Other,
    /// The last poll failed.
    Silent,
}

/// Follows the host whose role is `master`. If several have it, the current primary stays. If the current
/// primary is not among them, there is no primary, because only one of them has the sessions.
pub(super) async fn follow(state: Arc<State>, hosts: Vec<Host>) {
    let (answers, mut heard) = mpsc::channel(hosts.len());
    let doubts = state.doubts.subscribe();
    // A server that is no primary is polled over a new connection each time, because the address may have
    // moved to another server.
    let reopen = Some(Reopen { after: |role| !reply::is_primary(role), pause: LOOK_AGAIN });
    let questions = PollSpec { question: cmd("ROLE"), interval: INTERVAL, reopen, doubts, answers };
    let start = |host: &Host| TopologyPoller::start(state.connector(host), questions.clone());
    let _observers: Vec<_> = hosts.iter().map(start).collect();
    let mut said = HashMap::new();
    let roles = async {
        while let Some(answer) = heard.recv().await {
            note(&state, &mut said, answer);
        }
    };
    tokio::join!(roles, look_again(&state));
}

/// Checks over new connections which server is at the primary's address, at intervals and on demand. When the
/// address moves, existing connections may remain with the former server, which continues to reply.
async fn look_again(state: &State) {
    loop {
        sleep(PAUSE).await;
        tokio::select! {
            () = sleep(LOOK_AGAIN) => (),
            () = state.looks.wanted.notified() => (),
        }
        let begun = Instant::now();
        for primary in state.layout.load_full().primaries() {
            primary.look_again().await;
        }
        state.looks.begun.send_replace(begun);
    }
}

/// Checks of which server is at an address.
pub(super) struct Looks {
    wanted: Notify,
    /// When the last completed check was started.
    begun: watch::Sender<Instant>,
}

impl Looks {
    pub(super) fn new() -> Self {
        Looks { wanted: Notify::new(), begun: watch::Sender::new(Instant::now()) }
    }

    /// Waits until a check that was started after this call is complete.
    pub(super) async fn next(&self) {
        let (now, mut begun) = (Instant::now(), self.begun.subscribe());
        self.wanted.notify_one();
        // Cannot fail: the sender belongs to `self`.
        let _ = begun.wait_for(|begun| *begun >= now).await;
    }
}

fn note(state: &State, roles: &mut HashMap<Host, Role>, answer: Answer) {
    let role = answer.said.map_or(Role::Silent, |said| role(state, &said));
    roles.insert(answer.from, role);
    let current = state.layout.load().primaries.first().map(|primary| primary.host().clone());
    let primary = choose(roles, current.as_ref());
    if primary != current {
        tracing::warn!(found = primary.is_some(), "the primary of the session store has changed");
        state.publish(primary.as_slice(), Slots::One);
    }
}

fn role(state: &State, reply: &Value) -> Role {
    if !reply::is_primary(reply) {
        return Role::Other;
    }
    state.note_followers(&replicas(reply));
    Role::Master
}

/// The primary according to the latest roles; see [`follow`].
fn choose(roles: &HashMap<Host, Role>, current: Option<&Host>) -> Option<Host> {
    let masters: Vec<_> =
        roles.iter().filter(|(_, role)| **role == Role::Master).map(|(host, _)| host).collect();
    match (masters.as_slice(), current) {
        ([only], _) => Some((*only).clone()),
        (masters, Some(current)) if masters.contains(&current) => Some(current.clone()),
        // A primary that does not reply stays. Without any primary, calls would fail as well, with another
        // error.
        ([], Some(current)) if roles.get(current) == Some(&Role::Silent) => Some(current.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(roles: [Role; 3], current: Option<usize>) -> Option<usize> {
        let hosts: Vec<_> = (1..=3).map(|port| Host { name: "h".to_owned(), port }).collect();
        let roles = hosts.iter().cloned().zip(roles).collect();
        let chosen = choose(&roles, current.and_then(|index| hosts.get(index)))?;
        hosts.iter().position(|host| *host == chosen)
    }

    #[test]
    fn the_only_master_is_the_primary_and_two_are_none() {
        use Role::{Master, Other, Silent};
        assert_eq!(chosen([Other, Master, Other], None), Some(1));
        assert_eq!(chosen([Other, Master, Silent], Some(2)), Some(1));
        assert_eq!(chosen([Master, Master, Other], None), None);
        assert_eq!(chosen([Master, Master, Other], Some(1)), Some(1));
        assert_eq!(chosen([Master, Master, Other], Some(2)), None);
        assert_eq!(chosen([Other, Other, Silent], Some(2)), Some(2));
        assert_eq!(chosen([Other, Other, Silent], Some(1)), None);
        assert_eq!(chosen([Silent, Silent, Silent], None), None);
    }
}
