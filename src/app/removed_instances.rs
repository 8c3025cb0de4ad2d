//! What becomes of streams on instances that a reload removes.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::sleep;

use crate::config::RemovedStreams;
use crate::proxy::RuntimeConfig;
use crate::upstream::Instance;

/// Lets go of the instances that were in `before` and are no more in `after`, in the way that `after` wants.
pub(super) fn release(before: &RuntimeConfig, after: &RuntimeConfig) {
    let policy = after.config.reload.removed_streams;
    for instance in removed(before, after) {
        match policy {
            RemovedStreams::Keep => {}
            RemovedStreams::Close => close(&instance),
            RemovedStreams::KeepUntil(time) => {
                // Without streams nobody keeps the instance.
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
