//! A primary among a fixed set of hosts, or the only one.

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
/// How often an address is looked at over a new connection.
const LOOK_AGAIN: Duration = Duration::from_millis(380);
/// Between two looks, however many want to know.
const PAUSE: Duration = Duration::from_millis(20);

/// What a host says that it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Master,
    Other,
    Silent,
}

/// Follows whichever of `hosts` calls itself master. When several do, one that was the primary before stays
/// it; when that leaves a choice, there is no primary, because only one of them has the sessions.
pub(super) async fn follow(state: Arc<State>, hosts: Vec<Host>) {
    let (answers, mut heard) = mpsc::channel(hosts.len());
    let doubts = state.doubts.subscribe();
    // A server that is no primary is asked over a new connection, since the address may lead to another one by now.
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

/// Finds out over new connections where the primary's address leads, at intervals and on demand. A moved address may
/// leave open connections as they are, to a server that goes on to answer.
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

/// Looks at where an address leads.
pub(super) struct Looks {
    wanted: Notify,
    /// When the last one that is over was begun.
    begun: watch::Sender<Instant>,
}

impl Looks {
    pub(super) fn new() -> Self {
        Looks { wanted: Notify::new(), begun: watch::Sender::new(Instant::now()) }
    }

    /// Waits until a look is over that was begun from now on.
    pub(super) async fn next(&self) {
        let (now, mut begun) = (Instant::now(), self.begun.subscribe());
        self.wanted.notify_one();
        // The sender lives in the same place as we do.
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

fn choose(roles: &HashMap<Host, Role>, current: Option<&Host>) -> Option<Host> {
    let masters: Vec<_> =
        roles.iter().filter(|(_, role)| **role == Role::Master).map(|(host, _)| host).collect();
    match (masters.as_slice(), current) {
        ([only], _) => Some((*only).clone()),
        (masters, Some(current)) if masters.contains(&current) => Some(current.clone()),
        // A primary that does not answer is not replaced by nobody: that would only change the error.
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
