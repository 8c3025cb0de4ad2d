//! Active health checks of one instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::probe::{self, ProbeError};
use crate::config::HealthCheck;
use crate::transport::ConnectionLimiter;
use crate::upstream::{Instance, Lease};

/// The first checks of all instances are spread over this time, or over the interval if it is shorter. It is
/// short because requests may wait for the first checks.
const SPREAD: Duration = Duration::from_millis(100);
/// Longest pause between two checks of an instance that needs a successful check before it is used.
const UNPROVEN: Duration = Duration::from_secs(1);

/// The result of a check.
#[derive(Debug)]
pub(super) enum Finding {
    Good,
    Bad(ProbeError),
    /// The check could not be made for lack of a slot, connection or socket. It does not affect the health.
    Busy(&'static str),
}

/// Checks forever and passes each result to `tell`. When [`Instance::doubt`] is called, a running check is
/// abandoned, because its result would be outdated, and a new one starts at once.
pub(super) async fn repeat<T: Future>(
    instance: &Arc<Instance>,
    check: &HealthCheck,
    lines: &ConnectionLimiter,
    tell: impl Fn(Finding) -> T,
) {
    sleep(first_pause(check.interval)).await;
    loop {
        let begun = Instant::now();
        tokio::select! {
            biased;
            () = instance.doubted() => continue,
            finding = once(instance, check, lines) => tell(finding).await,
        };
        let pause = match instance.doubts() {
            None => check.interval,
            Some(_) => check.interval.min(UNPROVEN),
        };
        tokio::select! {
            () = instance.doubted() => {}
            () = sleep_until(begun + jittered(pause)) => {}
        }
    }
}

/// A random first pause, so that the checks of many instances do not start together.
fn first_pause(interval: Duration) -> Duration {
    SPREAD.min(interval).mul_f64(fastrand::f64())
}

/// The interval, varied at random by up to 10 %, so that checks by several proxies do not stay synchronized.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() / 5.0)
}

/// Makes one check. If slots are limited, the check takes a slot and a connection like a request. An instance
/// that accepts ten connections would not accept an eleventh for a check, which does not mean that it is
/// dead.
async fn once(instance: &Arc<Instance>, check: &HealthCheck, lines: &ConnectionLimiter) -> Finding {
    let deadline = Instant::now() + check.timeout;
    let limit = instance.slots();
    let slot = limit.and_then(|_| Lease::take_for_check(instance));
    if limit.is_some() && slot.is_none() {
        return Finding::Busy("all slots are taken");
    }
    let Ok(_room) = timeout_at(deadline, lines.room(instance.address, instance.connections())).await else {
        return Finding::Busy("all connections are in use");
    };
    match timeout_at(deadline, probe::probe(instance.address, &check.kind)).await {
        Ok(Ok(())) => Finding::Good,
        Ok(Err(error)) if error.is_ours() => Finding::Busy("there is no socket left for it"),
        Ok(Err(error)) => {
            if error.is_refusal() {
                instance.connect_refused();
            }
            Finding::Bad(error)
        }
        Err(_) => Finding::Bad(ProbeError::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_checks_are_spread_over_a_moment_or_the_interval() {
        for (interval, most) in [(Duration::from_millis(30), 30_000), (Duration::from_secs(60), 100_000)] {
            let mut tenths = [false; 10];
            for _ in 0..1000 {
                let pause = first_pause(interval).as_micros();
                tenths[usize::try_from(pause * 10 / most).unwrap()] = true;
            }
            assert_eq!(tenths, [true; 10], "{interval:?}");
        }
    }

    #[test]
    fn intervals_vary_by_a_tenth() {
        let interval = Duration::from_secs(10);
        for _ in 0..1000 {
            let jittered = jittered(interval);
            assert!((Duration::from_secs(9)..=Duration::from_secs(11)).contains(&jittered), "{jittered:?}");
        }
    }
}
