//! Upstreams: named groups of instances and what is known of each instance.

mod instance;

use std::sync::Arc;

pub use instance::{Condition, Instance, InstanceId, Lease};

use crate::config;

/// A named group of instances. Members never change; a new set is a new `Upstream`.
#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    instances: Box<[Arc<Instance>]>,
}

impl Upstream {
    pub fn new(config: &config::Upstream) -> Self {
        let instances = config.instances.iter().map(|instance| Arc::new(Instance::new(instance)));
        Upstream { name: config.name.clone(), instances: instances.collect() }
    }

    /// All instances in the order of the configuration.
    pub fn instances(&self) -> &[Arc<Instance>] {
        &self.instances
    }

    /// The instance with this identity, if it is a member.
    pub fn find(&self, id: InstanceId) -> Option<&Arc<Instance>> {
        self.instances.iter().find(|instance| instance.id == id)
    }
}
