//! A precise timer. The millisecond resolution of tokio's timers would distort every latency that counts from
//! a due time.

use std::io;

use tokio::time::{Instant, sleep_until};

/// A timer.
#[derive(Debug)]
pub(super) struct Pacer(system::Timer);

impl Pacer {
    /// Must be called within a runtime.
    pub(super) fn new() -> io::Result<Self> {
        system::Timer::new().map(Pacer)
    }

    /// Waits until `moment`, or for ever without one.
    pub(super) async fn until(&self, moment: Option<Instant>) {
        let Some(moment) = moment else { return std::future::pending().await };
        if self.0.wait(moment).await.is_err() {
            sleep_until(moment).await;
        }
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// A timerfd(2).
    #[derive(Debug)]
    pub(super) struct Timer(AsyncFd<OwnedFd>);

    impl Timer {
        #[expect(deprecated, reason = "unsound only for what lies about its descriptor; an OwnedFd does not")]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            Ok(Timer(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
        }

        pub(super) async fn wait(&self, moment: Instant) -> io::Result<()> {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let once = Timespec::try_from(left).map_err(io::Error::other)?;
            let setting = Itimerspec { it_interval: never, it_value: once };
            timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting)?;
            loop {
                let mut ready = self.0.readable().await?;
                // Setting the timer again clears a pending expiration, so there may be nothing to read.
                if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?)) {
                    return read.map(drop);
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use tokio::time::Instant;

    /// Elsewhere tokio's timer is used.
    #[derive(Debug)]
    pub(super) struct Timer;

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Timer)
        }

        pub(super) async fn wait(&self, moment: Instant) -> io::Result<()> {
            tokio::time::sleep_until(moment).await;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_is_never_early_and_can_be_set_anew() {
        let pacer = Pacer::new().unwrap();
        for _ in 0..20 {
            let far = Instant::now() + Duration::from_secs(3600);
            tokio::select! {
                biased;
                () = pacer.until(Some(far)) => panic!("an hour early"),
                () = tokio::task::yield_now() => {}
            }
            let near = Instant::now() + Duration::from_micros(1500);
            pacer.until(Some(near)).await;
            assert!(Instant::now() >= near);
            pacer.until(Some(near)).await;
        }
    }
}
