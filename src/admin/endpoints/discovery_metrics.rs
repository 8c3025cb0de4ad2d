//! Metrics of service discovery.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};

use super::metrics::{counter, gauge};
use crate::discovery::State;

pub(super) fn encode(states: &BTreeMap<String, State>, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = gauge(out, "discovery_up", "1 when the last look-up for instances was good")?;
    for (upstream, state) in states {
        metric.encode_family(&label(upstream))?.encode_gauge(&u64::from(state.looked && !state.failing))?;
    }
    let mut metric = gauge(out, "discovery_instances", "Instances in the last good set")?;
    for (upstream, state) in states {
        metric.encode_family(&label(upstream))?.encode_gauge(&(state.count() as u64))?;
    }
    let mut metric =
        counter(out, "discovery_changes", "Sets of instances that differed from the one before")?;
    for (upstream, state) in states {
        metric.encode_family(&label(upstream))?.encode_counter::<NoLabelSet, _, u64>(&state.changes, None)?;
    }
    let mut metric = counter(out, "discovery_failures", "Look-ups for instances that failed")?;
    for (upstream, state) in states {
        metric
            .encode_family(&label(upstream))?
            .encode_counter::<NoLabelSet, _, u64>(&state.failures, None)?;
    }
    Ok(())
}

fn label(upstream: &str) -> [(&'static str, &str); 1] {
    [("upstream", upstream)]
}
