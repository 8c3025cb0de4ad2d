//! Upstreams: named groups of instances, with the run-time state of each instance.

mod budget;
mod deadline;
mod distinct_clients;
mod fresh_check;
mod health_state;
mod instance;
mod lease;
mod least_loaded;
mod load;
mod queue;
mod rate_limiter;
mod request_stats;
mod shared;
mod shared_slots;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;

pub use budget::Budget;
pub use deadline::{Deadline, DeadlineAction};
pub use distinct_clients::DistinctClients;
pub use fresh_check::UnprovenReason;
pub use health_state::{Cause, CheckResult, Ejection, Health, HealthState};
pub use instance::{Condition, Instance, InstanceId};
pub use lease::Lease;
pub use least_loaded::LeastLoadedIndex;
pub use queue::{QueuePosition, QueueTicket, SlotRequest};
pub use request_stats::{Failure, Outcome, RequestStats, Tally};
pub use shared::UpstreamShared;
pub use shared_slots::share_slots;
pub use streams::{STREAM_AFTER, Stream};

use crate::clock::unix_seconds;
use crate::config;

/// A named group of instances. The set of members is immutable; a changed set is a new `Upstream`.
#[derive(Debug)]
pub struct Upstream {
    pub config: config::Upstream,
    instances: Box<[Arc<Instance>]>,
    /// Indexes into `instances`.
    by_id: HashMap<InstanceId, usize>,
    by_name: HashMap<String, usize>,
    group: Arc<UpstreamShared>,
}

impl Upstream {
    /// Builds the upstream that `config` describes.
    ///
    /// If `previous` is given, its wait queue and the instances with the same address are carried over. State
    /// that the operator set at run time (slots, weight, administrative state) is kept unless the
    /// configuration of that instance has changed. Instances that are no longer configured are closed and set
    /// to [`Down`](config::InstanceState::Down).
    pub fn new(config: &config::Upstream, previous: Option<&Upstream>) -> Self {
        let group = previous.map_or_else(Arc::default, |previous| previous.group.clone());
        let instances: Box<[_]> = config
            .instances
            .iter()
            .map(|instance| match previous.and_then(|previous| previous.member(instance)) {
                Some((before, kept)) => adopt(before, kept, instance),
                None => Arc::new(Instance::new(instance, &group, previous.map_or(0, |_| unix_seconds()))),
            })
            .collect();
        for instance in &instances {
            instance.set_slow_start(config.slow_start);
            // An instance that is added while others already serve has no sessions yet, so it can wait for
            // its first successful health check before it gets requests.
            let at_first =
                if instance.joined() == 0 { UnprovenReason::Unknown } else { UnprovenReason::Away };
            instance.set_checked(config.health.is_some(), at_first);
            instance.record().follow(&config.outlier);
        }
        let by_id: HashMap<_, _> =
            instances.iter().zip(0..).map(|(instance, place)| (instance.id, place)).collect();
        let before = previous.map_or(&[][..], Upstream::instances);
        before.iter().filter(|instance| !by_id.contains_key(&instance.id)).for_each(|gone| {
            gone.set_open(false);
            // Setting it down stops all further requests, with or without affinity, including requests that
            // still wait in the queue on behalf of the previous upstream.
            gone.set_state(config::InstanceState::Down);
        });
        let named = config.instances.iter().zip(0..);
        let by_name = named.filter_map(|(instance, place)| Some((instance.name.clone()?, place))).collect();
        Upstream { config: config.clone(), instances, by_id, by_name, group }
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// All instances, in the order of the configuration.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// All instances, each with its configuration.
    pub fn members(&self) -> impl Iterator<Item = (&Arc<Instance>, &config::Instance)> {
        self.instances.iter().zip(&self.config.instances)
    }

    pub fn group(&self) -> &Arc<UpstreamShared> {
        &self.group
    }

    /// The member with this id, or `None`.
    pub fn find(&self, id: InstanceId) -> Option<&Arc<Instance>> {
        self.by_id.get(&id).and_then(|place| self.instances.get(*place))
    }

    /// The member with this configured `name`, or `None`.
    pub fn find_named(&self, name: &str) -> Option<&Arc<Instance>> {
        self.by_name.get(name).and_then(|place| self.instances.get(*place))
    }

    fn member(&self, wanted: &config::Instance) -> Option<(&config::Instance, &Arc<Instance>)> {
        let place = *self.by_id.get(&InstanceId::of(wanted.address))?;
        Some((self.config.instances.get(place)?, self.instances.get(place)?))
    }
}

fn adopt(before: &config::Instance, kept: &Arc<Instance>, now: &config::Instance) -> Arc<Instance> {
    kept.set_slots(now.max_requests);
    if now.weight != before.weight {
        kept.set_weight(now.weight);
    }
    if now.state != before.state {
        kept.set_state(now.state);
    }
    kept.clone()
}
