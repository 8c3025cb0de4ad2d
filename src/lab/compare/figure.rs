//! What each figure is called, what it is measured in and which way is better.

use super::Figure;

/// How a figure is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    Percent,
    /// How many times.
    Ratio,
    /// A number of things by request.
    PerRequest,
    /// Bytes by request.
    Bytes,
    /// Microseconds by request.
    Microseconds,
    Mebibytes,
}

impl Unit {
    /// What stands behind a number; empty for a bare number.
    pub fn symbol(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Percent => "%",
            Unit::Ratio | Unit::PerRequest => "",
            Unit::Bytes => "B",
            Unit::Microseconds => "µs",
            Unit::Mebibytes => "MiB",
        }
    }

    /// What stands behind a difference of two numbers.
    pub fn difference_symbol(self) -> &'static str {
        match self {
            Unit::Percent => "points",
            other => other.symbol(),
        }
    }
}

impl Figure {
    /// All figures in the order in which they are shown: first what users feel, then what it costs.
    pub const ALL: [Figure; 14] = [
        Figure::LatencyMean,
        Figure::LatencyP50,
        Figure::LatencyP95,
        Figure::LatencyP99,
        Figure::FirstTokenP50,
        Figure::SessionsLost,
        Figure::ActionsFailed,
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
            Figure::ImbalanceMax => "imbalance_max",
            Figure::ImbalanceCv => "imbalance_cv",
            Figure::ScaleOutShare => "scale_out_share",
            Figure::StoreCommands => "store_commands",
            Figure::StoreBytes => "store_bytes",
            Figure::ProxyCpu => "proxy_cpu",
            Figure::ProxyMemory => "proxy_memory",
        }
    }

    /// What a person calls it: the beginning of a sentence.
    pub fn title(self) -> &'static str {
        match self {
            Figure::LatencyMean => "Mean time of an action",
            Figure::LatencyP50 => "Median time of an action",
            Figure::LatencyP95 => "Time of an action, 95th percentile",
            Figure::LatencyP99 => "Time of an action, 99th percentile",
            Figure::FirstTokenP50 => "Median time to the first token",
            Figure::SessionsLost => "Sessions lost",
            Figure::ActionsFailed => "Actions failed",
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
            Figure::ImbalanceMax | Figure::ImbalanceCv => Unit::Ratio,
            Figure::StoreCommands => Unit::PerRequest,
            Figure::StoreBytes => Unit::Bytes,
            Figure::ProxyCpu => Unit::Microseconds,
            Figure::ProxyMemory => Unit::Mebibytes,
        }
    }

    /// Whether more of it is better; of all others less is.
    pub fn more_is_better(self) -> bool {
        self == Figure::ScaleOutShare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_listed_under_the_name_that_it_has_in_json() {
        for figure in Figure::ALL {
            assert_eq!(serde_json::to_value(figure).unwrap(), figure.key());
        }
        let known: std::collections::BTreeSet<_> = Figure::ALL.into_iter().collect();
        assert_eq!(known.len(), Figure::ALL.len());
    }
}
