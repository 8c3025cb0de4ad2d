//! Health of instances: active health checks and outlier detection.
//!
//! Each upstream has one task, its health manager. Only the manager decides whether an instance is able to
//! serve. Its input is the results of health checks and the outcomes of requests. Every decision has a
//! reason.

mod check;
mod manager;
mod probe;
mod rise_fall;
mod window;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::drain::Drain;
use crate::transport::ConnectionLimiter;
use crate::upstream::Upstream;
use manager::HealthManager;

/// Capacity of the queue of check results to the manager.
const FINDINGS: usize = 64;

/// Starts the health manager of `upstream` and, if configured, the health checks of its instances. They run
/// until `drain` begins. A successor may then be started, and continues from the present health. `lines` is
/// the connection limiter of the process. `changed` is called whenever an instance becomes able or unable to
/// serve.
pub fn watch(
    upstream: &Arc<Upstream>,
    lines: &ConnectionLimiter,
    drain: &Drain,
    changed: impl Fn() + Clone + Send + 'static,
) {
    let (sender, findings) = mpsc::channel(FINDINGS);
    for (instance, place) in upstream.instances().iter().zip(0..) {
        let Some(check) = upstream.config.health.clone() else { break };
        let (instance, lines) = (instance.clone(), lines.clone());
        let (sender, drain) = (sender.clone(), drain.clone());
        tokio::spawn(async move {
            let checks = check::repeat(&instance, &check, &lines, |finding| sender.send((place, finding)));
            tokio::select! {
                biased;
                () = drain.begun() => {}
                () = checks => {}
            }
        });
    }
    let (manager, drain) = (HealthManager::new(upstream.clone(), changed), drain.clone());
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = drain.begun() => {}
            () = manager.run(findings) => {}
        }
    });
}
