//! Model check of the queue: under any interleaving no request waits while it could be served, and no slot is
//! lost.
//!
//! Clients, slot holders and an operator run as state machines that take one step at a time. Returning a slot
//! and offering it are two steps, as are changing an instance's state and notifying the queue. For a few
//! participants all interleavings are run, for more a random sample. When no participant can take a step,
//! each client that still waits must find all suitable slots taken when it chooses again.

use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::config::{self, InstanceState};
use crate::upstream::Upstream;
use crate::upstream::load::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Can use any instance.
    Free,
    /// Has affinity to the first instance. Goes elsewhere if that keeps no sticky sessions.
    Tied,
    /// Mapped by a hash: to the first instance if it is open, else to the second.
    Led,
}

/// The state of a client.
#[derive(Debug)]
enum At {
    Coming,
    Joining(SlotRequest),
    Choosing(QueueTicket),
    Wishing(QueueTicket, SlotRequest),
    Waiting(QueueTicket),
    /// Granted a slot, or (`None`) notified to choose again.
    Called(QueueTicket, Option<Lease>),
    Served(Lease),
    /// Its request has ended, but its slot has not been offered to others yet.
    Leaving(Arc<Instance>),
    Over,
}

enum Choice {
    Taken(Lease),
    Full(SlotRequest),
    Nobody,
}

/// The next step of the operator.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Set(usize, InstanceState),
    /// The balancer updates which instances are open. The queue is not notified yet.
    Open,
    Tell,
}

struct World {
    upstream: Upstream,
    clients: Vec<(Kind, At)>,
    deeds: Vec<Deed>,
    done: usize,
}

/// Two instances of one slot each.
impl World {
    fn new(clients: &[Kind], deeds: &[Deed]) -> Self {
        let instances = (0..2).map(|number| config::Instance {
            max_requests: Some(1),
            ..config::Instance::at(([127, 0, 0, 1], 5001 + number).into())
        });
        let config = config::Upstream { instances: instances.collect(), ..config::Upstream::named("app") };
        let world = World {
            upstream: Upstream::new(&config, None),
            clients: clients.iter().map(|kind| (*kind, At::Coming)).collect(),
            deeds: deeds.to_vec(),
            done: 0,
        };
        world.open();
        world
    }

    fn open(&self) {
        for instance in self.upstream.instances() {
            instance.set_open(instance.state() == InstanceState::Ready);
        }
    }

    /// The participants that can take a step: clients by number, then the operator.
    fn able(&mut self) -> Vec<usize> {
        let mut able = Vec::new();
        for (number, (_, at)) in self.clients.iter_mut().enumerate() {
            if let At::Waiting(ticket) = at
                && let Some(slot) = ticket.slot().now_or_never()
                && let At::Waiting(ticket) = std::mem::replace(at, At::Over)
            {
                *at = At::Called(ticket, slot);
            }
            able.extend((!matches!(at, At::Over | At::Waiting(_))).then_some(number));
        }
        able.extend((self.done < self.deeds.len()).then_some(self.clients.len()));
        able
    }

    fn step(&mut self, who: usize) {
        if who == self.clients.len() {
            let deed = self.deeds[self.done];
            self.done += 1;
            return self.operate(deed);
        }
        let (kind, at) = &mut self.clients[who];
        let (kind, at) = (*kind, std::mem::replace(at, At::Over));
        let next = match at {
            At::Coming => match self.choose(kind) {
                Choice::Taken(lease) => At::Served(lease),
                Choice::Full(wish) => At::Joining(wish),
                Choice::Nobody => At::Over,
            },
            At::Joining(wish) => At::Choosing(self.upstream.group().join(wish, 9).unwrap()),
            At::Choosing(ticket) => match self.choose(kind) {
                Choice::Taken(lease) => At::Served(lease),
                Choice::Full(wish) => At::Wishing(ticket, wish),
                Choice::Nobody => At::Over,
            },
            At::Wishing(mut ticket, wish) => match ticket.wish(wish) {
                QueuePosition::Before => At::Waiting(ticket),
                QueuePosition::Anew => At::Choosing(ticket),
                QueuePosition::Granted(lease) => At::Served(lease),
            },
            At::Waiting(ticket) => At::Waiting(ticket),
            At::Called(_, Some(lease)) => At::Served(lease),
            At::Called(ticket, None) => At::Choosing(ticket),
            At::Served(lease) => {
                let instance = lease.instance().clone();
                // The two steps of dropping the lease: this is the first, `Leaving` is the second.
                std::mem::forget(lease);
                instance.leave(Work::Request);
                At::Leaving(instance)
            }
            At::Leaving(instance) => {
                self.upstream.group().left(&instance);
                At::Over
            }
            At::Over => At::Over,
        };
        self.clients[who].1 = next;
    }

    fn operate(&self, deed: Deed) {
        let instances = self.upstream.instances();
        match deed {
            Deed::Set(place, state) => instances[place].set_state(state),
            Deed::Open => self.open(),
            Deed::Tell => self.upstream.group().rematch_waiters(instances),
        }
    }

    fn choose(&self, kind: Kind) -> Choice {
        let instances = self.upstream.instances();
        let open: Vec<_> = instances.iter().filter(|instance| instance.is_open()).collect();
        let take = |instance: &Arc<Instance>, wish| match Lease::take(instance) {
            Some(lease) => Choice::Taken(lease),
            None => Choice::Full(wish),
        };
        match (kind, open.first()) {
            (Kind::Tied, _) if instances[0].keeps_ties() => {
                take(&instances[0], SlotRequest::Only(instances[0].id))
            }
            (_, None) => Choice::Nobody,
            (Kind::Led, Some(first)) => take(first, SlotRequest::Led(first.id)),
            _ => match open.iter().find_map(|instance| Lease::take(instance)) {
                Some(lease) => Choice::Taken(lease),
                None => Choice::Full(SlotRequest::Any { except: Vec::new() }),
            },
        }
    }

    /// To be called when no participant can take a step.
    fn check(&self) {
        let waiting: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, at)| matches!(at, At::Waiting(_)))
            .map(|(kind, _)| *kind)
            .collect();
        for kind in &waiting {
            assert!(matches!(self.choose(*kind), Choice::Full(_)), "{kind:?} waits in vain");
        }
        assert_eq!(self.upstream.group().waiting(), waiting.len());
        assert_eq!(waiting.len(), 0, "everybody gives their slot back in the end");
        assert_eq!(self.upstream.group().load(), 0);
        assert!(self.upstream.instances().iter().all(|instance| instance.in_flight() == 0));
    }
}

/// Runs the steps given by `choices`, then always the first possible one. Returns the number of possible
/// steps at each point.
fn play(clients: &[Kind], deeds: &[Deed], choices: &[usize]) -> Vec<usize> {
    let (mut world, mut widths) = (World::new(clients, deeds), Vec::new());
    loop {
        let able = world.able();
        if able.is_empty() {
            break;
        }
        let choice = choices.get(widths.len()).copied().unwrap_or(0) % able.len();
        widths.push(able.len());
        world.step(able[choice]);
    }
    world.check();
    widths
}

/// Runs all interleavings and returns how many there are.
fn play_all(clients: &[Kind], deeds: &[Deed]) -> usize {
    let (mut choices, mut orders) = (Vec::new(), 0);
    loop {
        let widths = play(clients, deeds, &choices);
        orders += 1;
        choices.resize(widths.len(), 0);
        while let Some(last) = choices.last_mut() {
            *last += 1;
            if *last < widths[choices.len() - 1] {
                break;
            }
            choices.pop();
        }
        if choices.is_empty() {
            return orders;
        }
    }
}

fn changes(state: InstanceState) -> [Deed; 3] {
    [Deed::Set(0, state), Deed::Open, Deed::Tell]
}

#[test]
fn no_order_of_a_few_steps_leaves_anybody_waiting_in_vain() {
    use InstanceState::{Down, Drain, Ready};
    let mut orders = 0;
    for first in [Kind::Free, Kind::Tied, Kind::Led] {
        for second in [Kind::Free, Kind::Tied, Kind::Led] {
            for state in [Down, Drain] {
                orders += play_all(&[first, second], &changes(state));
            }
        }
    }
    assert!(orders > 1_000, "{orders}");
    // A single client with one instance: it goes down and comes back.
    for kind in [Kind::Free, Kind::Tied, Kind::Led] {
        let away = [Deed::Set(1, Down), Deed::Open, Deed::Tell];
        let back = [away, changes(Down), changes(Ready)].concat();
        play_all(&[kind], &back);
    }
}

fn deed() -> impl Strategy<Value = [Deed; 3]> {
    let state = prop_oneof![
        2 => Just(InstanceState::Ready),
        1 => Just(InstanceState::Drain),
        1 => Just(InstanceState::Down),
    ];
    (0..2usize, state).prop_map(|(place, state)| [Deed::Set(place, state), Deed::Open, Deed::Tell])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_order_of_many_steps_leaves_anybody_waiting_in_vain(
        clients in vec(prop_oneof![Just(Kind::Free), Just(Kind::Tied), Just(Kind::Led)], 1..7),
        deeds in vec(deed(), 0..5),
        choices in vec(0..7usize, 0..120),
    ) {
        play(&clients, &deeds.concat(), &choices);
    }
}
