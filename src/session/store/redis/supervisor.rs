//! Supervises one connection of a pool: opens, tests and replaces it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;

use super::link::Link;
use super::pool::{Pool, Role};

/// Interval of health checks of a connection. A connection with a reported error is tested at once.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// An extra connection is closed after this many pings without a call.
const IDLE_PINGS: u32 = 30;
/// Delay before another extra connection may be opened after one was lost, closed or could not be opened.
const EXTRA_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lived this long resets the backoff. Shorter ones do not, because a server may accept
/// connections and then fail.
const STABLE: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));

/// Supervises one connection: a kept one until cancelled, an extra one until it is lost or idle.
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

/// Why a connection is not used any more.
enum End {
    Lost,
    Unused,
    Aged,
}

/// Publishes `link` in the pool until it is lost or idle, and replaces it when its lifetime is over. Returns
/// how long that took.
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
            // If no replacement can be opened, the old connection stays in use.
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

/// Tests `link` until it is lost, idle or older than `lifetime`.
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

/// The configured lifetime minus a random share of up to a tenth, so that connections that were opened
/// together are not replaced together.
fn lifetime(pool: &Pool) -> Option<Duration> {
    pool.limits.max_lifetime.map(|most| most.mul_f64(1.0 - fastrand::f64() / 10.0))
}
