//! A request under way on an instance.

use std::sync::Arc;

use super::instance::Instance;

/// One request under way on an instance; dropping it is its end, and gives its slot to who waits for it.
#[derive(Debug)]
pub struct Lease(Arc<Instance>);

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
        Lease(instance.clone())
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The order matters: who begins to wait looks for a free slot after it can be seen waiting.
        self.0.leave();
        self.0.group.left(&self.0);
    }
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
    fn no_more_slots_are_taken_than_there_are() {
        let instance = Instance::with_slots(Some(2));
        let leases = [Lease::take(&instance).unwrap(), Lease::take(&instance).unwrap()];
        assert!(Lease::take(&instance).is_none());
        drop(leases);
        assert!(Lease::take(&instance).is_some());
        assert_eq!(instance.in_flight(), 0);
    }
}
