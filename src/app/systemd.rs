//! Notifications to the service manager (sd_notify(3)). Without a service manager they do nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// `READY=1` with `MAINPID`: after an upgrade this makes the process the service's main process.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
}

/// `STOPPING=1`: shutdown has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// `RELOADING=1`: a reload has begun. [`ready`] must follow.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the system's clock failed"),
    }
}

/// Sends watchdog keep-alives at a third of the watchdog timeout. Does nothing when the service has no
/// watchdog. Never completes.
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
