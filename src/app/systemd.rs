//! What a service manager is told (sd_notify(3)). Without one nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// We serve; after an upgrade this makes us the service's main process.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
}

/// We are ending.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// We read the configuration; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the system's clock failed"),
    }
}

/// Says in time, again and again, that we live, if anybody wants to know. Never ends.
pub(super) async fn live() {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep((limit / 3).max(Duration::from_millis(10))).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told how we are");
    }
}
