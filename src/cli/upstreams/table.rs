//! Upstreams as a table.

use std::io::{self, Write};

use serde_json::Value;

const HEAD: [&str; 9] =
    ["UPSTREAM", "INSTANCE", "STATE", "CONDITION", "WEIGHT", "REQUESTS", "STREAMS", "SESSIONS", "DEADLINE"];

/// Writes the instances of a report, one line each, in columns.
pub(super) fn write(report: &Value, out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<[String; 9]> = [HEAD.map(str::to_owned)].into_iter().chain(rows(report)).collect();
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn rows(report: &Value) -> impl Iterator<Item = [String; 9]> {
    list(report, "upstreams").flat_map(|upstream| {
        list(upstream, "instances").map(move |instance| {
            let cell = |name: &str| text(&instance[name]);
            let [address, state, condition] = ["address", "state", "condition"].map(cell);
            let [weight, requests, streams, sessions] =
                ["weight", "requests", "streams", "sessions"].map(cell);
            let name = text(&upstream["name"]);
            [name, address, state, condition, weight, requests, streams, sessions, deadline(instance)]
        })
    })
}

/// The elements of a member that is a list.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn deadline(instance: &Value) -> String {
    match instance.get("deadline_seconds").and_then(Value::as_u64) {
        None => "-".to_owned(),
        Some(seconds) => format!("{}, then {}", duration(seconds), text(&instance["then"])),
    }
}

/// Such as `1h5m0s`.
pub(super) fn duration(seconds: u64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let seconds = seconds % 60;
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn instances_stand_in_columns() {
        let report = json!({ "upstreams": [{ "name": "app", "instances": [
            { "address": "127.0.0.1:5001", "state": "drain", "condition": "up", "weight": 1, "requests": 12,
              "streams": 3, "sessions": 40, "deadline_seconds": 3905, "then": "close" },
            { "address": "[::1]:5002", "state": "ready", "condition": "backing_off", "weight": 10,
              "requests": 0, "streams": 0 },
        ] }] });
        let mut out = Vec::new();
        write(&report, &mut out).unwrap();
        let expected = "\
UPSTREAM  INSTANCE        STATE  CONDITION    WEIGHT  REQUESTS  STREAMS  SESSIONS  DEADLINE
app       127.0.0.1:5001  drain  up           1       12        3        40        1h5m5s, then close
app       [::1]:5002      ready  backing_off  10      0         0        -         -
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0, 59, 60, 3600].map(duration), ["0s", "59s", "1m0s", "1h0m0s"]);
    }
}
