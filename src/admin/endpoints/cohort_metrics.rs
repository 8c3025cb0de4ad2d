//! Metrics of a comparison of session modes.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::metrics::counter;
use crate::config::Mode;
use crate::proxy::CohortCounts;

/// Encodes the workers' counters.
pub(super) fn encode(
    cohorts: &BTreeMap<(Mode, String), CohortCounts>,
    out: &mut DescriptorEncoder<'_>,
) -> fmt::Result {
    let help = "Requests that an instance answered while modes are compared";
    let mut metric = counter(out, "vestibule_cohort_requests", help)?;
    for ((mode, upstream), cohort) in cohorts {
        for (instance, count) in &cohort.requests {
            let labels = [("mode", mode.as_str()), ("upstream", upstream), ("instance", instance)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    let help = "Of these, by where another mode would have sent them";
    let mut metric = counter(out, "vestibule_cohort_other_mode", help)?;
    for ((mode, upstream), cohort) in cohorts {
        for (other, count) in &cohort.others {
            let labels = [("mode", mode.as_str()), ("upstream", upstream), ("other", other.as_str())];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
        }
    }
    let help = "Of these, those whose tie was lost with its instance, and a session in its memory with it";
    let mut metric = counter(out, "vestibule_cohort_ties_lost", help)?;
    for ((mode, upstream), cohort) in cohorts {
        let labels = [("mode", mode.as_str()), ("upstream", upstream)];
        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&cohort.ties_lost, None)?;
    }
    Ok(())
}
