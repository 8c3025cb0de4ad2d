//! The task that looks up the instances of one upstream.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::failure::Failure;
use super::source::{DiscoveryResult, Source};
use super::state::State;
use crate::config::{Discovery, Instance};

/// Repeats look-ups until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) discovery: Discovery,
    pub(super) state: watch::Receiver<State>,
    _task: AbortOnDropHandle<()>,
}

impl Watcher {
    /// Starts the task for `upstream`. `news` is notified when the set changes. The set of the watcher
    /// `before` is kept until the first success.
    pub(super) fn start(
        upstream: &str,
        discovery: &Discovery,
        before: Option<&Watcher>,
        news: Arc<Notify>,
    ) -> Self {
        let state = before.map(|before| before.state.borrow().after()).unwrap_or_default();
        let (sender, receiver) = watch::channel(state);
        let (upstream, mut source) = (upstream.to_owned(), Source::new(discovery));
        let task = tokio::spawn(async move {
            loop {
                let DiscoveryResult { found, again } = source.look().await;
                if take(&sender, &upstream, found) {
                    news.notify_one();
                }
                sleep(again).await;
            }
        });
        Watcher { discovery: discovery.clone(), state: receiver, _task: AbortOnDropHandle::new(task) }
    }
}

/// Records the result of a look-up and logs changes. Returns whether the set has changed.
fn take(states: &watch::Sender<State>, upstream: &str, found: Result<Vec<Instance>, Failure>) -> bool {
    let (failed, mut changed) = (states.borrow().failing, false);
    let failure = found.as_ref().err();
    let set = found.as_ref().map(Vec::clone);
    states.send_modify(|state| changed = state.record(set));
    let instances = states.borrow().count();
    match failure {
        Some(error) if !failed => {
            tracing::warn!(upstream, %error, instances, "discovery fails; the last good set is kept");
        }
        None if failed => tracing::info!(upstream, instances, "discovery is good again"),
        _ => {}
    }
    if changed {
        tracing::info!(upstream, instances, "instances were found or are gone");
    }
    changed
}
