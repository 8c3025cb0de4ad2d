//! Keeps one connection: opens it, tests it, replaces it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;

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
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));

/// Supervises one connection: a kept one for ever, an extra one until it is lost or idle.
pub(super) async fn run(pool: &Arc<Pool>, role: Role) {
    let mut attempt = 0;
    loop {
        match pool.primary.connect().await {
            Ok(link) => {
                if serve(pool, role, link).await >= STABLE {
                    attempt = 0;
                }
            }
            Err(failure) => pool.failed(failure),
        }
        if role == Role::Extra {
            sleep(EXTRA_PAUSE).await;
            return pool.retired();
        }
        sleep(BACKOFF.delay(attempt)).await;
        attempt = attempt.saturating_add(1);
    }
}

/// How the use of a connection ended.
enum End {
    Lost,
    Unused,
    Aged,
}

/// Puts `link` to use for as long as it is sound and wanted, and another one for it when it gets old; how long
/// that was.
async fn serve(pool: &Pool, role: Role, link: Link) -> Duration {
    let opened = Instant::now();
    let mut link = Arc::new(link);
    pool.publish(&link, role);
    loop {
        match watch(pool, role, &link, lifetime(pool)).await {
            End::Lost => {
                pool.withdraw(&link);
                tracing::debug!("lost a connection to the session store");
                return opened.elapsed();
            }
            End::Unused => return opened.elapsed(),
            // The old one serves on while no other one can be opened.
            End::Aged => {
                if let Ok(fresh) = pool.primary.connect().await {
                    let old = std::mem::replace(&mut link, Arc::new(fresh));
                    pool.publish(&link, role);
                    pool.withdraw(&old);
                }
            }
        }
    }
}

/// Tests `link` until it is lost, not wanted or older than `lifetime`.
async fn watch(pool: &Pool, role: Role, link: &Arc<Link>, lifetime: Option<Duration>) -> End {
    let used_since = Instant::now();
    let mut idle_pings = 0;
    loop {
        tokio::select! {
            () = sleep(PING_INTERVAL) => idle_pings += 1,
            () = link.troubled() => (),
        }
        if !link.is_sound().await {
            return End::Lost;
        }
        if link.used.swap(false, Ordering::Relaxed) {
            idle_pings = 0;
        }
        if role == Role::Extra && idle_pings >= IDLE_PINGS && pool.withdraw_idle(link) {
            return End::Unused;
        }
        if lifetime.is_some_and(|lifetime| used_since.elapsed() >= lifetime) {
            return End::Aged;
        }
    }
}

/// The configured lifetime less a random share of up to a tenth, so that connections that were opened together are
/// not replaced together.
fn lifetime(pool: &Pool) -> Option<Duration> {
    pool.limits.max_lifetime.map(|most| most.mul_f64(1.0 - fastrand::f64() / 10.0))
}
