//! Follows a Redis Cluster: the primaries are those to which a majority of the slot owners assigns the slots.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Host;

use super::State;
use super::poller::{Answer, PollSpec, TopologyPoller};
use super::snapshot::{SLOTS, Slots};

const INTERVAL: Duration = Duration::from_millis(300);
/// How long a reply of a node is valid, counted from the request.
const VALID: Duration = Duration::from_millis(1000);
/// How long the last reply of a node that does not reply any more is kept, and the nodes that it names are
/// polled.
const MEMORY: Duration = Duration::from_secs(60);

/// Follows the cluster that the nodes at `seeds` belong to.
pub(super) async fn watch(state: Arc<State>, seeds: Vec<Host>) {
    let (answers, mut heard) = mpsc::channel(16);
    let mut question = cmd("CLUSTER");
    question.arg("SLOTS");
    let doubts = state.doubts.subscribe();
    let questions = PollSpec { question, interval: INTERVAL, reopen: None, doubts, answers };
    let seeds: BTreeSet<_> = seeds.into_iter().collect();
    let mut observers: HashMap<Host, TopologyPoller> = HashMap::new();
    let mut views = Views::new();
    let mut known = Known::default();
    loop {
        let named = views.values().flat_map(View::owners).cloned();
        let wanted: BTreeSet<_> = named.chain(seeds.iter().cloned()).collect();
        observers.retain(|host, _| wanted.contains(host));
        for host in wanted {
            let start = || TopologyPoller::start(state.connector(&host), questions.clone());
            observers.entry(host.clone()).or_insert_with(start);
        }
        let Some(Answer { from, asked, said }) = heard.recv().await else { return };
        if let Some(ranges) = said.ok().and_then(|said| ranges(&said, &from)) {
            views.insert(from, View { ranges, asked });
        }
        let now = Instant::now();
        views.retain(|_, view| view.asked + MEMORY > now);
        if let Some(until) = known.learn(&views, now) {
            known.publish(&state, now);
            state.confirm(until);
        }
    }
}

type Views = HashMap<Host, View>;

/// The reply of a node, and when it was requested.
struct View {
    /// In ascending order, without overlaps.
    ranges: Vec<Range>,
    asked: Instant,
}

/// A range of slots, both ends included, and its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    owner: Host,
}

impl View {
    fn owners(&self) -> impl Iterator<Item = &Host> {
        self.ranges.iter().map(|range| &range.owner)
    }
}

/// The assignment of slots that was accepted last.
#[derive(Default)]
struct Known {
    /// The owners of slots, which vote on the assignment of slots.
    voters: BTreeSet<Host>,
    ranges: Vec<Range>,
    /// The voters, and nodes without slots that a voter has redirected a call to.
    published: BTreeSet<Host>,
    is_new: bool,
}

impl Known {
    /// Accepts the assignment of a majority of the known owners. If too few of those have replied recently,
    /// the owners that one of the nodes names vote instead. Returns until when the result is valid; `None`
    /// without a majority.
    fn learn(&mut self, views: &Views, now: Instant) -> Option<Instant> {
        let others = views.values().map(|view| view.owners().cloned().collect());
        let electorates = std::iter::once(self.voters.clone()).chain(others);
        let (votes, quorum, until) = electorates.filter_map(|voters| votes(&voters, views, now)).next()?;
        let ranges = agreed(&votes, quorum, &self.ranges);
        if ranges != self.ranges {
            self.voters = ranges.iter().map(|range| range.owner.clone()).collect();
            self.ranges = ranges;
            self.is_new = true;
        }
        Some(until)
    }

    fn publish(&mut self, state: &State, now: Instant) {
        let hosts: BTreeSet<_> = self.voters.iter().cloned().chain(state.fresh_guests(now)).collect();
        if hosts != self.published {
            tracing::info!(primaries = hosts.len(), "the primaries of the session store have changed");
        } else if !self.is_new {
            return;
        }
        let hosts_in_order: Vec<_> = hosts.iter().cloned().collect();
        state.publish(&hosts_in_order, slots(&self.ranges, &hosts_in_order));
        self.published = hosts;
        self.is_new = false;
    }
}

/// The recent replies of `voters`, the quorum, and until when a quorum of them is valid; `None` if there are
/// fewer than a quorum.
fn votes<'a>(
    voters: &BTreeSet<Host>,
    views: &'a Views,
    now: Instant,
) -> Option<(Vec<&'a View>, usize, Instant)> {
    let quorum = voters.len() / 2 + 1;
    let of_voters = voters.iter().filter_map(|host| views.get(host));
    let mut votes: Vec<_> = of_voters.filter(|view| view.asked + VALID > now).collect();
    votes.sort_unstable_by_key(|view| std::cmp::Reverse(view.asked));
    let oldest = votes.get(quorum - 1)?.asked;
    Some((votes, quorum, oldest + VALID))
}

/// The assignment that at least `quorum` votes agree on. While the votes on a slot differ, as after a
/// migration, it stays with its `old` owner if at least one vote names that one. The old owner can redirect
/// calls.
fn agreed(votes: &[&View], quorum: usize, old: &[Range]) -> Vec<Range> {
    let ranges = || votes.iter().flat_map(|view| &view.ranges);
    let ends: BTreeSet<_> =
        ranges().flat_map(|range| [u32::from(range.first), u32::from(range.last) + 1]).collect();
    let mut agreed: Vec<Range> = Vec::new();
    for (first, end) in ends.iter().zip(ends.iter().skip(1)) {
        let (Ok(first), Ok(last)) = (u16::try_from(*first), u16::try_from(*end - 1)) else { continue };
        let named: Vec<_> = votes.iter().filter_map(|view| owner(&view.ranges, first)).collect();
        let count = |host: &&&Host| named.iter().filter(|other| other == host).count();
        let elected = named.iter().find(|host| count(host) >= quorum).copied();
        let kept = || owner(old, first).filter(|host| named.contains(host));
        let Some(owner) = elected.or_else(kept) else { continue };
        match agreed.last_mut() {
            Some(before) if before.last + 1 == first && before.owner == *owner => before.last = last,
            _ => agreed.push(Range { first, last, owner: owner.clone() }),
        }
    }
    agreed
}

fn owner(ranges: &[Range], slot: u16) -> Option<&Host> {
    let range = ranges.get(ranges.partition_point(|range| range.last < slot))?;
    (range.first <= slot).then_some(&range.owner)
}

fn slots(ranges: &[Range], hosts: &[Host]) -> Slots {
    let mut owners = vec![None; SLOTS];
    for Range { first, last, owner } in ranges {
        let index = hosts.iter().position(|host| host == owner).and_then(|index| u16::try_from(index).ok());
        if let Some(owned) = owners.get_mut(usize::from(*first)..=usize::from(*last)) {
            owned.fill(index);
        }
    }
    Slots::Cluster(owners.into())
}

/// Decodes the reply of `CLUSTER SLOTS`: `[first, last, [name, port, …], replicas…]` for each range. A node
/// that does not know its own name is at the address that was `asked`.
fn ranges(reply: &Value, asked: &Host) -> Option<Vec<Range>> {
    let mut ranges: Vec<_> =
        reply.as_sequence()?.iter().map(|entry| range(entry, asked)).collect::<Option<_>>()?;
    ranges.sort_unstable_by_key(|range| range.first);
    let are_apart = ranges.is_sorted_by(|one, next| one.last < next.first);
    are_apart.then_some(ranges)
}

fn range(entry: &Value, asked: &Host) -> Option<Range> {
    let [Value::Int(first), Value::Int(last), owner, ..] = entry.as_sequence()? else { return None };
    let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
    let [name, Value::Int(port), ..] = owner.as_sequence()? else { return None };
    let name = match name {
        Value::BulkString(name) if !name.is_empty() && name != b"?" => str::from_utf8(name).ok()?.to_owned(),
        Value::BulkString(_) | Value::Nil => asked.name.clone(),
        _ => return None,
    };
    let port = u16::try_from(*port).ok().filter(|port| *port != 0)?;
    (first <= last && usize::from(last) < SLOTS).then_some(Range { first, last, owner: Host { name, port } })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(port: u16) -> Host {
        Host { name: "h".to_owned(), port }
    }

    fn range(first: u16, last: u16, port: u16) -> Range {
        Range { first, last, owner: host(port) }
    }

    /// Views of nodes: `(node, owners of 0-99, 100-199 and 200-299, age in milliseconds)`.
    fn views(now: Instant, said: &[(u16, [u16; 3], u64)]) -> Views {
        let view = |(from, owners, age): &(u16, [u16; 3], u64)| {
            let ranges =
                owners.iter().zip([0, 100, 200]).map(|(port, first)| range(first, first + 99, *port));
            (host(*from), View { ranges: ranges.collect(), asked: now - Duration::from_millis(*age) })
        };
        said.iter().map(view).collect()
    }

    fn now() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_majority_of_the_owners_decides() {
        let now = now();
        let mut known = Known::default();
        assert_eq!(known.learn(&views(now, &[(1, [1, 2, 3], 10)]), now), None);
        let until =
            known.learn(&views(now, &[(1, [1, 2, 3], 10), (3, [1, 2, 3], 400), (9, [1, 2, 3], 0)]), now);
        assert_eq!(until, Some(now + VALID - Duration::from_millis(400)));
        assert_eq!(known.ranges, [range(0, 99, 1), range(100, 199, 2), range(200, 299, 3)]);
        // Node 2 has failed. Node 4 was promoted, but node 3 does not know it yet.
        let split = views(now, &[(1, [1, 4, 3], 0), (3, [1, 2, 3], 0), (4, [1, 4, 3], 0)]);
        assert!(known.learn(&split, now).is_some());
        assert_eq!(known.ranges[1], range(100, 199, 2));
        assert!(known.learn(&views(now, &[(1, [1, 4, 3], 0), (3, [1, 4, 3], 0)]), now).is_some());
        assert_eq!(known.ranges[1], range(100, 199, 4));
    }

    #[test]
    fn a_minority_and_old_news_are_not_believed() {
        let now = now();
        let mut known = Known::default();
        known.learn(&views(now, &[(1, [1, 2, 3], 0), (2, [1, 2, 3], 0)]), now).unwrap();
        assert_eq!(known.learn(&views(now, &[(2, [2, 2, 3], 0)]), now), None);
        assert_eq!(known.learn(&views(now, &[(1, [1, 2, 3], 1000), (2, [1, 2, 3], 0)]), now), None);
        assert_eq!(known.ranges[0], range(0, 99, 1));
    }

    #[test]
    fn owners_that_are_no_majority_any_more_are_replaced_by_those_that_are_one() {
        let now = now();
        let mut known = Known::default();
        known.learn(&views(now, &[(1, [1, 1, 2], 0), (2, [1, 1, 2], 0)]), now).unwrap();
        known.learn(&views(now, &[(2, [3, 3, 2], 0), (3, [3, 3, 2], 0)]), now).unwrap();
        assert_eq!(known.voters, BTreeSet::from([host(2), host(3)]));
    }

    #[test]
    fn slots_that_nobody_owns_have_no_owner() {
        let Slots::Cluster(owners) = slots(&[range(1, 2, 7), range(5, 16_383, 8)], &[host(7), host(8)])
        else {
            panic!("slots of a cluster")
        };
        let some: Vec<_> = owners.iter().take(6).copied().collect();
        assert_eq!(some, [None, Some(0), Some(0), None, None, Some(1)]);
        assert_eq!((owners.len(), owners.last()), (SLOTS, Some(&Some(1))));
    }

    #[test]
    fn nodes_are_named_or_where_they_were_asked() {
        let reply = |text: &str| redis::parse_redis_value(text.replace(' ', "\r\n").as_bytes()).unwrap();
        let named = reply("*1 *3 :5 :9 *3 $1 n :7000 $2 id ");
        let expected = Range { first: 5, last: 9, owner: Host { name: "n".to_owned(), port: 7000 } };
        assert_eq!(ranges(&named, &host(1)), Some(vec![expected]));
        for unnamed in ["*1 *3 :5 :9 *2 _ :7000 ", "*1 *3 :5 :9 *2 $0  :7000 ", "*1 *3 :5 :9 *2 $1 ? :7000 "]
        {
            assert_eq!(ranges(&reply(unnamed), &host(1)), Some(vec![range(5, 9, 7000)]), "{unnamed}");
        }
        for wrong in
            ["+OK ", "*1 :1 ", "*1 *3 :9 :5 *2 _ :1 ", "*1 *3 :0 :16384 *2 _ :1 ", "*1 *3 :0 :1 *2 _ :0 "]
        {
            assert_eq!(ranges(&reply(wrong), &host(1)), None, "{wrong}");
        }
        let twice = reply("*2 *3 :0 :5 *2 _ :1 *3 :5 :9 *2 _ :1 ");
        assert_eq!(ranges(&twice, &host(1)), None);
    }

    proptest! {
        #[test]
        fn a_slot_has_the_owner_that_most_views_give_it(
            cuts in proptest::collection::vec((0_u16..1000, 0_u16..1000), 3..6),
        ) {
            let at = Instant::now();
            let views: Vec<_> = cuts.iter().map(|(a, b)| {
                let (low, high) = (*a.min(b), *a.max(b));
                let all = [range(0, low, 1), range(low + 1, high + 1, 2), range(high + 2, 1002, 3)];
                View { ranges: all.into(), asked: at }
            }).collect();
            let votes: Vec<_> = views.iter().collect();
            let quorum = votes.len() / 2 + 1;
            let result = agreed(&votes, quorum, &[]);
            for slot in 0..=1002 {
                let count = |port| votes.iter().filter(|view| owner(&view.ranges, slot) == Some(&host(port))).count();
                let expected = (1..=3).find(|port| count(*port) >= quorum).map(host);
                prop_assert_eq!(owner(&result, slot), expected.as_ref());
            }
        }
    }
}
