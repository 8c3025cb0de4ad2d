//! Keeps one connection: opens it, tests it, replaces it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;

use super::super::StoreError;
use super::link::Link;
use super::pool::{Pool, Role};

/// A silent connection is tested this often; one that gave a sign of trouble at once.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// An extra connection that nobody used for this many pings is closed.
const IDLE_PINGS: u32 = 30;
/// After an extra connection has gone or could not be opened, no other one is tried for this long.
const EXTRA_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lived this long was a good one: its successor is opened without the
/// growing delays of a server that accepts and then fails.
const STABLE: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// Supervises one connection: a kept one for ever, an extra one until it is lost or idle.
pub(super) async fn run(pool: &Arc<Pool>, role: Role) {
    let mut attempt = 0;
    loop {
        match pool.connector.connect().await {
            Ok(link) => {
                tracing::info!("connected to the session store");
                if serve(pool, role, Arc::new(link)).await >= STABLE {
                    attempt = 0;
                }
            }
            Err(failure) => note_failure(pool, failure),
        }
        if role == Role::Extra {
            sleep(EXTRA_PAUSE).await;
            return pool.retired();
        }
        sleep(BACKOFF.delay(attempt)).await;
        attempt = attempt.saturating_add(1);
    }
}

/// Puts `link` to use for as long as it is sound and wanted; how long that was.
async fn serve(pool: &Pool, role: Role, link: Arc<Link>) -> Duration {
    let opened = Instant::now();
    pool.publish(&link, role);
    let mut idle_pings = 0;
    let lost = loop {
        tokio::select! {
            () = sleep(PING_INTERVAL) => idle_pings += 1,
            () = link.troubled() => (),
        }
        if !link.is_sound().await {
            break true;
        }
        if link.used.swap(false, Ordering::Relaxed) {
            idle_pings = 0;
        }
        if role == Role::Extra && idle_pings >= IDLE_PINGS {
            break false;
        }
    };
    pool.withdraw(&link);
    if lost {
        tracing::warn!("lost a connection to the session store");
    }
    opened.elapsed()
}

/// Logs a failure to connect when it is another one than before; there may be one every second.
fn note_failure(pool: &Pool, failure: StoreError) {
    // To a caller, who did not wait, a connection that took too long to open is just not there.
    let shown = if failure == StoreError::Timeout { StoreError::Disconnected } else { failure };
    if pool.failed(shown) {
        tracing::warn!(reason = failure.kind(), "cannot connect to the session store");
    }
}
