//! The plan follows the instances that are found while the proxy runs, and the checks follow the plan.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::checks::Checks;
use crate::config::Config;
use crate::discovery::Discovery;
use crate::proxy::Shared;

/// Looks for the instances of `config`, and completes when everything was looked for once: what was found is in
/// the plan then, and instances are checked. The rest is done until the handle is dropped.
pub(super) async fn follow(
    mut discovery: Discovery,
    config: Arc<Config>,
    shared: Arc<Shared>,
) -> AbortOnDropHandle<()> {
    discovery.follow(&config.upstreams);
    discovery.first_looks().await;
    let mut checks = Checks::new(shared.clone());
    complete(&discovery, &config, &shared);
    checks.follow_plan();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            discovery.changed().await;
            complete(&discovery, &config, &shared);
            checks.follow_plan();
        }
    }))
}

/// Lets new requests see what was found.
fn complete(discovery: &Discovery, config: &Config, shared: &Shared) {
    let plan = shared.plan.load();
    let complete = discovery.complete(config);
    if complete.upstreams == plan.config.upstreams {
        return;
    }
    match plan.succeed(Arc::new(complete)) {
        Ok(next) => shared.plan.store(Arc::new(next.with_mode(plan.mode))),
        Err(error) => tracing::error!(%error, "instances that were found cannot be used"),
    }
}
