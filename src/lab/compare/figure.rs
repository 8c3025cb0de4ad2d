//! Name, unit and direction of each figure.

use super::{Estimate, Figure, Interval};

/// The unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    Percent,
    /// A ratio without a unit.
    Ratio,
    /// A rate per second.
    PerSecond,
    /// A count per request.
    PerRequest,
    /// Bytes per request.
    Bytes,
    /// Microseconds per request.
    Microseconds,
    Mebibytes,
}

impl Unit {
    /// The suffix of a number; empty for a bare number.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Percent => "%",
            Unit::PerSecond => "/s",
            Unit::Ratio | Unit::PerRequest => "",
            Unit::Bytes => "B",
            Unit::Microseconds => "µs",
            Unit::Mebibytes => "MiB",
        }
    }

    /// The suffix of a difference.
    pub fn difference_symbol(self) -> &'static str {
        match self {
            Unit::Percent => "points",
            other => other.symbol(),
        }
    }
}

impl Figure {
    /// All figures in display order: first what users experience, then the costs.
    pub const ALL: [Figure; 15] = [
        Figure::LatencyMean,
        Figure::LatencyP50,
        Figure::LatencyP95,
        Figure::LatencyP99,
        Figure::FirstTokenP50,
        Figure::SessionsLost,
        Figure::ActionsFailed,
        Figure::ActionsPerSecond,
        Figure::ImbalanceMax,
        Figure::ImbalanceCv,
        Figure::ScaleOutShare,
        Figure::StoreCommands,
        Figure::StoreBytes,
        Figure::ProxyCpu,
        Figure::ProxyMemory,
    ];

    /// The figure's name in JSON and CSV.
    pub fn key(self) -> &'static str {
        match self {
            Figure::LatencyMean => "latency_mean",
            Figure::LatencyP50 => "latency_p50",
            Figure::LatencyP95 => "latency_p95",
            Figure::LatencyP99 => "latency_p99",
            Figure::FirstTokenP50 => "first_token_p50",
            Figure::SessionsLost => "sessions_lost",
            Figure::ActionsFailed => "actions_failed",
            Figure::ActionsPerSecond => "actions_per_second",
            Figure::ImbalanceMax => "imbalance_max",
            Figure::ImbalanceCv => "imbalance_cv",
            Figure::ScaleOutShare => "scale_out_share",
            Figure::StoreCommands => "store_commands",
            Figure::StoreBytes => "store_bytes",
            Figure::ProxyCpu => "proxy_cpu",
            Figure::ProxyMemory => "proxy_memory",
        }
    }

    /// The figure's title, usable as the beginning of a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Figure::LatencyMean => "Mean time of an action",
            Figure::LatencyP50 => "Median time of an action",
            Figure::LatencyP95 => "Time of an action, 95th percentile",
            Figure::LatencyP99 => "Time of an action, 99th percentile",
            Figure::FirstTokenP50 => "Median time to the first token",
            Figure::SessionsLost => "Sessions lost",
            Figure::ActionsFailed => "Actions failed",
            Figure::ActionsPerSecond => "Actions per second",
            Figure::ImbalanceMax => "Load of the busiest instance by the mean",
            Figure::ImbalanceCv => "Spread of load between instances",
            Figure::ScaleOutShare => "Load that new instances take",
            Figure::StoreCommands => "Store commands per request",
            Figure::StoreBytes => "Store traffic per request",
            Figure::ProxyCpu => "Processor time of the proxy per request",
            Figure::ProxyMemory => "Memory of the proxy",
        }
    }

    pub fn unit(self) -> Unit {
        match self {
            Figure::LatencyMean
            | Figure::LatencyP50
            | Figure::LatencyP95
            | Figure::LatencyP99
            | Figure::FirstTokenP50 => Unit::Milliseconds,
            Figure::SessionsLost | Figure::ActionsFailed | Figure::ScaleOutShare => Unit::Percent,
            Figure::ActionsPerSecond => Unit::PerSecond,
            Figure::ImbalanceMax | Figure::ImbalanceCv => Unit::Ratio,
            Figure::StoreCommands => Unit::PerRequest,
            Figure::StoreBytes => Unit::Bytes,
            Figure::ProxyCpu => Unit::Microseconds,
            Figure::ProxyMemory => Unit::Mebibytes,
        }
    }

    /// Whether more is better. For all other figures less is better.
    pub fn more_is_better(self) -> bool {
        matches!(self, Figure::ScaleOutShare | Figure::ActionsPerSecond)
    }

    /// `estimate` with its interval clipped to the possible range of the figure, for example no negative
    /// loss.
    pub(super) fn possible(self, estimate: Estimate) -> Estimate {
        let most = if self.unit() == Unit::Percent { 100.0 } else { f64::INFINITY };
        let within =
            |Interval { low, high }| Interval { low: f64::max(low, 0.0), high: f64::min(high, most) };
        Estimate { interval: estimate.interval.map(within), ..estimate }
    }

    /// The largest difference from `base` that is irrelevant in practice, even when it is statistically
    /// significant.
    pub fn trifle(self, base: f64) -> f64 {
        match self.unit() {
            Unit::Percent => 0.1,
            Unit::Ratio => 0.02,
            _ => base.abs() * 0.05,
        }
    }

    /// The largest change from `base` that is not a regression: a tenth, but at least what is perceptible or
    /// varies from day to day.
    pub fn margin(self, base: f64) -> f64 {
        let least = match self {
            Figure::LatencyMean | Figure::LatencyP50 => 1.0,
            Figure::LatencyP95 | Figure::FirstTokenP50 => 2.0,
            Figure::LatencyP99 => 5.0,
            Figure::SessionsLost | Figure::ActionsFailed => 0.5,
            Figure::ImbalanceMax | Figure::ImbalanceCv | Figure::StoreCommands => 0.05,
            Figure::ScaleOutShare => 5.0,
            Figure::ActionsPerSecond => 1.0,
            Figure::StoreBytes => 16.0,
            Figure::ProxyCpu => 2.0,
            Figure::ProxyMemory => 4.0,
        };
        f64::max(base.abs() / 10.0, least)
    }

    /// A value with its unit, to three significant digits: `131 ms`, `0.25 %`, `1.9`.
    pub fn show(self, value: f64) -> String {
        with_symbol(value, self.unit().symbol())
    }

    /// A difference with its unit: `3.1 points`.
    pub fn show_difference(self, value: f64) -> String {
        with_symbol(value, self.unit().difference_symbol())
    }
}

fn with_symbol(value: f64, symbol: &str) -> String {
    let number = number(value);
    if symbol.is_empty() { number } else { format!("{number} {symbol}") }
}

/// A number for display: three significant digits, a typographic minus, no trailing zeros. `?` for a number
/// that is not finite.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "?".to_owned();
    }
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    let digits = format!("{:.decimals$}", value.abs());
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    let minus = if value < 0.0 && digits != "0" { "\u{2212}" } else { "" };
    format!("{minus}{}", grouped(digits))
}

/// Thousands separators from five digits on: `12,345`.
fn grouped(digits: &str) -> String {
    if digits.contains('.') || digits.len() < 5 {
        return digits.to_owned();
    }
    let mut groups = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            groups.push(',');
        }
        groups.push(digit);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::compare::estimate;

    #[test]
    fn every_figure_is_listed_under_the_name_that_it_has_in_json() {
        for figure in Figure::ALL {
            assert_eq!(serde_json::to_value(figure).unwrap(), figure.key());
        }
        let known: std::collections::BTreeSet<_> = Figure::ALL.into_iter().collect();
        assert_eq!(known.len(), Figure::ALL.len());
    }

    #[test]
    fn an_interval_holds_only_what_can_be() {
        let of = |figure: Figure, rounds: &[f64]| figure.possible(estimate(rounds)).interval.unwrap();
        assert_eq!(of(Figure::SessionsLost, &[0.0, 0.0, 0.6]).low, 0.0);
        assert_eq!(of(Figure::ActionsFailed, &[100.0, 100.0, 97.0]).high, 100.0);
        assert!(of(Figure::LatencyMean, &[100.0, 400.0, 700.0]).high > 700.0);
    }

    #[test]
    fn numbers_are_written_as_people_read_them() {
        let written =
            [0.0, -0.0004, 0.05, 1.0, 1.234, 9.999, 12.34, 99.96, 131.4, -3.16, 1234.5, 12345.6, 1e6];
        let read = [
            "0",
            "0",
            "0.05",
            "1",
            "1.23",
            "10",
            "12.3",
            "100",
            "131",
            "\u{2212}3.16",
            "1234",
            "12,346",
            "1,000,000",
        ];
        for (value, text) in written.into_iter().zip(read) {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(f64::NAN), "?");
        assert_eq!(Figure::SessionsLost.show(3.1), "3.1 %");
        assert_eq!(Figure::SessionsLost.show_difference(-3.1), "\u{2212}3.1 points");
        assert_eq!(Figure::StoreCommands.show(1.9), "1.9");
    }
}
