//! Reloads and upgrades.

use std::time::Duration;

use crate::config::change::{Reload, RemovedStreams, Upgrade};
use crate::config::fault::Fault;
use crate::config::file::{Node, Value};
use crate::config::section::Section;
use crate::config::value::{boolean, duration, size};

pub(super) fn reload(s: &mut Section<'_>) -> Reload {
    Reload {
        watch: s.value("watch", boolean, false),
        removed_streams: s.value("removed_streams", removed_streams, RemovedStreams::Keep),
    }
}

/// `"keep"`, `"close"` or `{ keep_until = "10m" }`.
fn removed_streams(node: &Node) -> Result<RemovedStreams, Fault> {
    let known = match &node.value {
        Value::Text(word) if word == "keep" => Some(RemovedStreams::Keep),
        Value::Text(word) if word == "close" => Some(RemovedStreams::Close),
        Value::Table(table) => match table.entries() {
            [only] if only.key == "keep_until" => return duration(&only.node).map(RemovedStreams::KeepUntil),
            _ => None,
        },
        _ => None,
    };
    known.ok_or_else(|| {
        Fault::new(
            "this is nothing that can be done with streams on removed instances",
            "they would be cut, or kept, against somebody's will",
            "write \"keep\", \"close\" or { keep_until = \"10m\" }",
        )
    })
}

pub(super) fn upgrade(s: &mut Section<'_>) -> Upgrade {
    Upgrade {
        timeout: s.value("timeout", duration, Duration::from_secs(30)),
        max_age: s.value("max_age", duration, Duration::from_secs(3600)),
        max_memory: s.value("max_memory", size(16 << 20..=1 << 50), 1 << 30) as u64,
    }
}
