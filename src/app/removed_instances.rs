//! Streams on instances that a reload has removed.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::sleep;

use crate::config::RemovedStreams;
use crate::proxy::RuntimeConfig;
use crate::upstream::Instance;

/// Applies `reload.removed_streams` of `after` to the instances that `before` has and `after` has not.
pub(super) fn release(before: &RuntimeConfig, after: &RuntimeConfig) {
    let policy = after.config.reload.removed_streams;
    for instance in removed(before, after) {
        match policy {
            RemovedStreams::Keep => {}
            RemovedStreams::Close => close(&instance),
            RemovedStreams::KeepUntil(time) => {
                // A weak reference: only streams keep a removed instance alive, so without them there is
                // nothing to close.
                let instance = Arc::downgrade(&instance);
                tokio::spawn(async move {
                    sleep(time).await;
                    if let Some(instance) = instance.upgrade() {
                        close(&instance);
                    }
                });
            }
        }
    }
}

fn close(instance: &Instance) {
    let closed = instance.close_streams();
    tracing::info!(instance = instance.label, closed, "streams on a removed instance were cut");
}

fn removed(before: &RuntimeConfig, after: &RuntimeConfig) -> Vec<Arc<Instance>> {
    let kept: HashSet<*const Instance> =
        after.upstreams().flat_map(|upstream| upstream.instances()).map(Arc::as_ptr).collect();
    let all = before.upstreams().flat_map(|upstream| upstream.instances());
    all.filter(|instance| !kept.contains(&Arc::as_ptr(instance))).cloned().collect()
}
