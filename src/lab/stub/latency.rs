//! How long an endpoint takes, as measured on an idle Dify 1.13.

use std::f64::consts::TAU;
use std::time::Duration;

use super::Spread;

/// Distance of the 95th percentile from the median, in standard deviations of a normal variable.
const P95_DEVIATIONS: f64 = 1.645;

/// Service time of one endpoint in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ServiceTime {
    pub(super) median: f64,
    pub(super) p95: f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    scale: f64,
    spread: Spread,
}

impl Latency {
    pub(super) fn new(scale: f64, spread: Spread) -> Self {
        Latency { scale, spread }
    }

    /// Waits as long as one request of such an endpoint takes.
    pub(super) async fn spend(&self, time: ServiceTime) {
        if self.scale > 0.0 {
            tokio::time::sleep(self.draw(time)).await;
        }
    }

    /// `pause` under the scale.
    pub(super) fn scaled(&self, pause: Duration) -> Duration {
        milliseconds(pause.as_secs_f64() * 1e3 * self.scale)
    }

    fn draw(&self, time: ServiceTime) -> Duration {
        let factor = match self.spread {
            Spread::Fixed => 1.0,
            Spread::Lognormal => ((time.p95 / time.median).ln() / P95_DEVIATIONS * standard_normal()).exp(),
        };
        milliseconds(time.median * factor * self.scale)
    }
}

/// A pause of at most a minute; nothing for a number that is no duration.
fn milliseconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.min(60_000.0) / 1e3).unwrap_or_default()
}

/// One draw by the Box-Muller transform.
fn standard_normal() -> f64 {
    let (radius, angle) = (1.0 - fastrand::f64(), fastrand::f64() * TAU);
    (-2.0 * radius.ln()).sqrt() * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGIN: ServiceTime = ServiceTime { median: 40.0, p95: 80.0 };

    #[test]
    fn a_fixed_time_is_the_scaled_median() {
        assert_eq!(Latency::new(0.5, Spread::Fixed).draw(LOGIN), Duration::from_millis(20));
    }

    #[test]
    fn drawn_times_have_the_given_median_and_95th_percentile() {
        let latency = Latency::new(1.0, Spread::Lognormal);
        let mut draws: Vec<_> = (0..20_000).map(|_| latency.draw(LOGIN).as_secs_f64() * 1e3).collect();
        draws.sort_by(f64::total_cmp);
        assert!((38.0..42.0).contains(&draws[10_000]), "median {}", draws[10_000]);
        assert!((75.0..85.0).contains(&draws[19_000]), "p95 {}", draws[19_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn scale_zero_takes_no_time() {
        let start = tokio::time::Instant::now();
        Latency::new(0.0, Spread::Lognormal).spend(LOGIN).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
