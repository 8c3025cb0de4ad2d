//! Which instance takes the next request.

mod round_robin;

use std::sync::Arc;

use tokio::time::Instant;

use crate::upstream::{Condition, Instance, Lease, Upstream};
use round_robin::Rotation;

/// The balancer of one upstream. Shared by all workers, so that the order is exact over all of them.
#[derive(Debug)]
pub struct Balancer {
    upstream: Arc<Upstream>,
    rotation: Rotation,
}

impl Balancer {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        let rotation = Rotation::new(upstream.instances().iter().map(|instance| instance.weight));
        Balancer { upstream, rotation }
    }

    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Chooses an instance that this request has not tried: one that is up, else one that is only
    /// backing off after failed connects. `None` when none is left.
    pub fn pick(&self, tried: &[Arc<Instance>], now: Instant) -> Option<Lease> {
        let instances = self.upstream.instances();
        let usable = |instance: &&Arc<Instance>, wanted| {
            instance.condition(now) == wanted && !is_tried(instance, tried)
        };
        // Turns of instances that cannot serve are used up, so that the others share them evenly. Other
        // workers take turns at the same time, so a whole cycle here may still have missed one.
        let turns = (0..self.rotation.len()).filter_map(|_| instances.get(self.rotation.next()));
        turns
            .chain(instances)
            .find(|instance| usable(instance, Condition::Up))
            .or_else(|| instances.iter().find(|instance| usable(instance, Condition::BackingOff)))
            .map(Lease::new)
    }

    /// Takes the instance a client is tied to, unless it is unable to serve or was tried already.
    pub fn pick_tied(
        &self,
        instance: &Arc<Instance>,
        tried: &[Arc<Instance>],
        now: Instant,
    ) -> Option<Lease> {
        (instance.condition(now) == Condition::Up && !is_tried(instance, tried)).then(|| Lease::new(instance))
    }
}

fn is_tried(instance: &Arc<Instance>, tried: &[Arc<Instance>]) -> bool {
    tried.iter().any(|other| Arc::ptr_eq(other, instance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn balancer(weights: &[u32]) -> Balancer {
        let instances = weights.iter().zip(5001..).map(|(weight, port)| config::Instance {
            address: ([127, 0, 0, 1], port).into(),
            weight: *weight,
        });
        let config = config::Upstream {
            name: "app".into(),
            balance: config::Balance::RoundRobin,
            session_control: false,
            health: None,
            instances: instances.collect(),
        };
        Balancer::new(Arc::new(Upstream::new(&config)))
    }

    fn ports(balancer: &Balancer, count: usize) -> Vec<u16> {
        let pick = |_| balancer.pick(&[], Instant::now()).unwrap().instance().address.port();
        (0..count).map(pick).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(ports(&balancer(&[1, 1, 1, 1]), 8), [5001, 5002, 5003, 5004, 5001, 5002, 5003, 5004]);
    }

    #[test]
    fn the_others_share_the_turns_of_one_that_is_down_evenly() {
        let balancer = balancer(&[1, 1, 1]);
        balancer.upstream().instances()[1].set_healthy(false);
        let picked = ports(&balancer, 100);
        assert_eq!(picked.iter().filter(|port| **port == 5001).count(), 50);
        assert!(!picked.contains(&5002));
    }

    #[test]
    fn an_instance_that_backs_off_is_the_last_resort_and_one_that_is_down_is_none() {
        let balancer = balancer(&[1, 1]);
        let (first, second) = (&balancer.upstream().instances()[0], &balancer.upstream().instances()[1]);
        first.connect_failed(Instant::now());
        assert_eq!(ports(&balancer, 3), [5002, 5002, 5002]);
        second.set_healthy(false);
        assert_eq!(ports(&balancer, 1), [5001]);
        first.set_healthy(false);
        assert!(balancer.pick(&[], Instant::now()).is_none());
    }

    #[test]
    fn an_instance_is_never_tried_twice() {
        let balancer = balancer(&[1, 1]);
        let mut tried = Vec::new();
        while let Some(lease) = balancer.pick(&tried, Instant::now()) {
            tried.push(lease.instance().clone());
        }
        assert_eq!(tried.len(), 2);
        assert!(balancer.pick_tied(&tried[0], &tried, Instant::now()).is_none());
    }
}
