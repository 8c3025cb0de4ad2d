//! Health checks follow the plan.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use crate::config::HealthCheck;
use crate::health;
use crate::proxy::Shared;
use crate::upstream::{Instance, InstanceId};

/// The checks of all instances. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Checks {
    shared: Arc<Shared>,
    running: HashMap<(String, InstanceId), Checked>,
}

#[derive(Debug)]
struct Checked {
    instance: Arc<Instance>,
    check: HealthCheck,
    _task: AbortOnDropHandle<()>,
}

impl Checks {
    /// None yet.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Checks { shared, running: HashMap::new() }
    }

    /// Checks the instances of the plan that is in force and no others. Checks of one that stays as it is go on. Needs
    /// a runtime.
    pub(super) fn follow_plan(&mut self) {
        let mut before = std::mem::take(&mut self.running);
        for upstream in self.shared.plan.load().upstreams() {
            let Some(check) = &upstream.config.health else { continue };
            for instance in upstream.instances() {
                let key = (upstream.name().to_owned(), instance.id);
                let same = |old: &Checked| Arc::ptr_eq(&old.instance, instance) && old.check == *check;
                let checked = before.remove(&key).filter(same);
                let checked = checked.unwrap_or_else(|| self.start(upstream.name(), instance, check));
                self.running.insert(key, checked);
            }
        }
    }

    fn start(&self, upstream: &str, instance: &Arc<Instance>, check: &HealthCheck) -> Checked {
        let (shared, name) = (self.shared.clone(), upstream.to_owned());
        let changed = move || {
            let plan = shared.plan.load();
            let mut balancers = plan.balancers().iter();
            if let Some(balancer) = balancers.find(|balancer| balancer.upstream().name() == name) {
                balancer.refresh();
            }
        };
        let task = health::watch(upstream, instance, check, changed);
        Checked { instance: instance.clone(), check: check.clone(), _task: task }
    }
}
