//! A request under way on an instance.

use std::fmt;
use std::sync::Arc;

use super::instance::Instance;

/// One request under way on an instance; dropping it is its end, and gives its slot to who waits for it. Where it was
/// [shared](Lease::share), that is when the last share is dropped.
#[derive(Debug)]
pub struct Lease {
    instance: Arc<Instance>,
    /// `None`: it is given back with the lease.
    shared: Option<Arc<Slot>>,
}

/// What is given back.
#[derive(Debug)]
struct Slot(Arc<Instance>);

impl Lease {
    /// Takes a slot; `None` when all are taken.
    pub fn take(instance: &Arc<Instance>) -> Option<Self> {
        instance.enter_as_request().then(|| Lease::begin(instance))
    }

    /// Takes a slot as a request does, for a check, which is not counted as a request; `None` when all are taken.
    pub fn take_for_check(instance: &Arc<Instance>) -> Option<Self> {
        instance.enter().then(|| Lease::begin(instance))
    }

    fn begin(instance: &Arc<Instance>) -> Self {
        instance.group.entered(instance);
        Lease { instance: instance.clone(), shared: None }
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// A share, for whoever must hold the slot as well; `None` where slots are not limited.
    pub fn share(&mut self) -> Option<Arc<dyn fmt::Debug + Send + Sync>> {
        self.instance.slots()?;
        let slot = self.shared.get_or_insert_with(|| Arc::new(Slot(self.instance.clone())));
        Some(slot.clone())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.shared.is_none() {
            give_back(&self.instance);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        give_back(&self.0);
    }
}

fn give_back(instance: &Arc<Instance>) {
    // The order matters: who begins to wait looks for a free slot after it can be seen waiting.
    instance.leave();
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
}
