//! The health of instances. One task per upstream, its manager, alone decides who is fit to serve; active checks and
//! what requests meet are its evidence, and every decision has a reason.

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

/// Findings of checks that wait for the manager.
const FINDINGS: usize = 64;

/// Puts a manager and the configured checks over the instances of `upstream`, until `drain` begins; then another may
/// take over, which goes on from their present standing. `lines` are the connections of the process. `changed` is
/// called whenever an instance begins or ceases to be fit to serve.
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
