//! Slot accounting for instances of several upstreams that have the same address and therefore are one
//! server.
//!
//! Each upstream has its own limit for the address. All of them together are limited to the largest of these.
//! A freed slot goes to the request that has waited longest, in whichever upstream.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Upstream;
use super::instance::Instance;
use super::load::{Load, Work};

/// The instances with one address, from at least two upstreams.
#[derive(Debug)]
pub(super) struct SharedSlots {
    members: Box<[Weak<Instance>]>,
    /// Held while an instance with a limit takes a slot, so that the sum of all loads and the increment are
    /// one step.
    gate: Mutex<()>,
}

/// Links the instances that have the same address. `upstreams` must be all upstreams of the configuration.
pub fn share_slots<'a>(upstreams: impl Iterator<Item = &'a Upstream>) {
    let mut by_address = BTreeMap::<SocketAddr, Vec<&Arc<Instance>>>::new();
    for instance in upstreams.flat_map(Upstream::instances) {
        by_address.entry(instance.address).or_default().push(instance);
    }
    for members in by_address.into_values() {
        let seats = (members.len() > 1).then(|| Arc::new(SharedSlots::of(&members)));
        let changed = members.iter().filter(|instance| instance.set_seats(seats.clone())).count();
        if changed > 0 {
            members.iter().for_each(|instance| instance.offer());
        }
    }
}

impl SharedSlots {
    fn of(members: &[&Arc<Instance>]) -> Self {
        SharedSlots {
            members: members.iter().map(|instance| Arc::downgrade(instance)).collect(),
            gate: Mutex::default(),
        }
    }

    fn members(&self) -> impl Iterator<Item = Arc<Instance>> {
        self.members.iter().filter_map(Weak::upgrade)
    }

    /// Upper limit for the sum of all members' requests and connections: the largest of their limits. It
    /// applies to members that have a limit; the load of the others counts but is not limited. `None` if no
    /// member has a limit.
    pub(super) fn limit(&self) -> Option<usize> {
        self.members().filter_map(|instance| instance.slots()).max()
    }

    /// Adds one `what` to `load`, the load of a member with the limit `slots`. Returns false if the member's
    /// limit or the common limit is reached.
    pub(super) fn enter(&self, load: &Load, what: Work, slots: usize) -> bool {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = self.members().map(|instance| instance.load()).sum();
        let has_room = self.limit().is_none_or(|limit| all < limit);
        has_room && load.add_below(slots, what)
    }

    /// Hands free slots to the waiting requests of all member upstreams, oldest first.
    pub(super) fn serve(&self) {
        loop {
            let next_of =
                |member: Arc<Instance>| Some((member.group.queue().arrival_of_next(&member)?, member));
            let mut waiting: Vec<_> = self.members().filter_map(next_of).collect();
            waiting.sort_unstable_by_key(|(arrived, _)| *arrived);
            if !waiting.iter().any(|(_, member)| member.group.queue().serve_one(member)) {
                return;
            }
        }
    }

    /// Whether both have the same members, in the same order.
    pub(super) fn is_of(&self, other: &SharedSlots) -> bool {
        self.members.len() == other.members.len()
            && self.members.iter().zip(&other.members).all(|(one, other)| one.ptr_eq(other))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use futures_util::FutureExt;

    use super::*;
    use crate::config;
    use crate::upstream::{Lease, SlotRequest};

    fn upstream(name: &str, slots: Option<usize>) -> Upstream {
        let instance =
            config::Instance { max_requests: slots, ..config::Instance::at(([127, 0, 0, 1], 5001).into()) };
        let config = config::Upstream { instances: vec![instance], ..config::Upstream::named(name) };
        let upstream = Upstream::new(&config, None);
        upstream.instances()[0].set_open(true);
        upstream
    }

    fn seated(limits: &[Option<usize>]) -> Vec<Upstream> {
        let upstreams: Vec<_> = limits.iter().map(|limit| upstream("app", *limit)).collect();
        share_slots(upstreams.iter());
        upstreams
    }

    fn take(upstream: &Upstream) -> Option<Lease> {
        Lease::take(&upstream.instances()[0])
    }

    #[test]
    fn each_has_its_own_limit_and_all_have_the_largest() {
        let upstreams = seated(&[Some(1), Some(3)]);
        let [small, large] = &upstreams[..] else { panic!() };
        let first = take(small).unwrap();
        assert!(take(small).is_none());
        let others = [take(large).unwrap(), take(large).unwrap()];
        assert!(take(large).is_none());
        drop(first);
        let third = take(large).unwrap();
        assert!(take(small).is_none());
        drop((others, third));
        assert!(take(small).is_some());
        assert_eq!(small.instances()[0].connections(), Some(3));
    }

    #[test]
    fn who_has_no_limit_is_not_refused_but_counts() {
        let upstreams = seated(&[Some(2), None]);
        let _free =
            [take(&upstreams[1]).unwrap(), take(&upstreams[1]).unwrap(), take(&upstreams[1]).unwrap()];
        assert!(take(&upstreams[0]).is_none());
    }

    #[test]
    fn what_becomes_free_goes_to_who_has_waited_longest_in_whichever_upstream() {
        let upstreams = seated(&[Some(2), Some(2)]);
        let taken = [take(&upstreams[0]).unwrap(), take(&upstreams[0]).unwrap()];
        let any = || SlotRequest::Any { except: Vec::new() };
        let mut second = upstreams[1].group().join(any(), 9).unwrap();
        let mut third = upstreams[0].group().join(any(), 9).unwrap();
        let [one, other] = taken;
        drop(one);
        let lease = second.slot().now_or_never().unwrap().unwrap();
        assert!(third.slot().now_or_never().is_none());
        drop(other);
        assert!(third.slot().now_or_never().unwrap().is_some());
        drop(lease);
        assert!(upstreams.iter().all(|upstream| upstream.group().load() == 0));
    }

    #[test]
    fn those_who_are_alone_again_have_their_own_limit() {
        let upstreams = seated(&[Some(1), Some(2)]);
        let _taken = [take(&upstreams[1]).unwrap(), take(&upstreams[1]).unwrap()];
        let mut waiting = upstreams[0].group().join(SlotRequest::Any { except: Vec::new() }, 9).unwrap();
        assert!(take(&upstreams[0]).is_none());
        share_slots(upstreams[..1].iter());
        assert!(waiting.slot().now_or_never().unwrap().is_some());
    }

    #[test]
    fn no_more_are_taken_than_there_are_however_many_take() {
        let (upstreams, held) = (seated(&[Some(3), Some(5)]), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for upstream in upstreams.iter().cycle().take(4) {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Some(lease) = take(upstream) else { continue };
                        let all = held.fetch_add(1, SeqCst) + 1;
                        assert!(all <= 5 && upstream.instances()[0].in_flight() <= 5, "{all}");
                        held.fetch_sub(1, SeqCst);
                        drop(lease);
                    }
                });
            }
        });
        assert!(upstreams.iter().all(|upstream| upstream.group().load() == 0));
    }
}
