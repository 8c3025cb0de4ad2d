//! RAII guard of a request in flight on an instance.

use std::fmt;
use std::sync::Arc;

use super::instance::Instance;
use super::load::Work;

/// One request in flight on an instance, with its slot. Dropping it ends the request and hands the slot to
/// the next waiting request. If the lease was [shared](Lease::share), that happens when the last share is
/// dropped.
#[derive(Debug)]
pub struct Lease {
    instance: Arc<Instance>,
    what: Work,
    /// `None`: the slot is returned when the lease is dropped.
    shared: Option<Arc<Slot>>,
}

/// Returns the slot when it is dropped.
#[derive(Debug)]
struct Slot(Arc<Instance>, Work);

impl Lease {
    /// Takes a slot for a request. Returns `None` if none is free.
    pub fn take(instance: &Arc<Instance>) -> Option<Self> {
        Lease::take_for(instance, Work::Request)
    }

    /// Takes a slot for a health check, which is not counted as a request. Returns `None` if none is free.
    pub fn take_for_check(instance: &Arc<Instance>) -> Option<Self> {
        Lease::take_for(instance, Work::Check)
    }

    fn take_for(instance: &Arc<Instance>, what: Work) -> Option<Self> {
        if !instance.enter(what) {
            return None;
        }
        instance.group.entered(instance);
        Some(Lease { instance: instance.clone(), what, shared: None })
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// A share of the slot, for another owner that must keep it in use. Returns `None` if slots are not
    /// limited.
    pub fn share(&mut self) -> Option<Arc<dyn fmt::Debug + Send + Sync>> {
        self.instance.slots()?;
        let slot = self.shared.get_or_insert_with(|| Arc::new(Slot(self.instance.clone(), self.what)));
        Some(slot.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.shared.is_none() {
            give_back(&self.instance, self.what);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        give_back(&self.0, self.1);
    }
}

fn give_back(instance: &Arc<Instance>, what: Work) {
    // The order matters: a request joins the queue first and then looks for a free slot. Freeing the slot
    // before the queue is served ensures that either the request finds the slot or the slot finds the
    // request.
    instance.leave(what);
    instance.group.left(instance);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_counts_until_it_is_dropped() {
        let instance = Instance::with_slots(None);
        let leases = [Lease::take(&instance), Lease::take(&instance)];
        assert_eq!((instance.in_flight(), instance.requests()), (2, 2));
        drop(leases);
        assert_eq!((instance.in_flight(), instance.requests()), (0, 2));
    }

    #[test]
    fn a_shared_slot_is_given_back_with_the_last_share() {
        let instance = Instance::with_slots(Some(1));
        let mut lease = Lease::take(&instance).unwrap();
        let shares = (lease.share().unwrap(), lease.share().unwrap());
        drop(lease);
        drop(shares.1);
        assert!(Lease::take(&instance).is_none());
        drop(shares.0);
        assert_eq!(instance.in_flight(), 0);
        assert!(Lease::take(&Instance::with_slots(None)).unwrap().share().is_none());
    }

    #[test]
    fn no_more_slots_are_taken_than_there_are() {
        let instance = Instance::with_slots(Some(2));
        let leases = [Lease::take(&instance).unwrap(), Lease::take(&instance).unwrap()];
        assert!(Lease::take(&instance).is_none());
        drop(leases);
        assert!(Lease::take(&instance).is_some());
        assert_eq!(instance.in_flight(), 0);
    }

    #[test]
    fn a_check_takes_a_slot_and_is_no_request() {
        let instance = Instance::with_slots(Some(1));
        let check = Lease::take_for_check(&instance).unwrap();
        assert_eq!((instance.load(), instance.in_flight(), instance.requests()), (1, 0, 0));
        assert!(Lease::take(&instance).is_none());
        drop(check);
        assert_eq!(instance.load(), 0);
    }
}
