//! Upstreams as a table.

use std::io::{self, Write};

use serde_json::Value;

const HEAD: [&str; 11] = [
    "UPSTREAM",
    "INSTANCE",
    "STATE",
    "CONDITION",
    "WEIGHT",
    "REQUESTS",
    "STREAMS",
    "SESSIONS",
    "DEADLINE",
    "NAME",
    "REASON",
];
/// Columns that are omitted when empty for all instances. They come last, so that the positions of the others
/// do not change.
const OPTIONAL: [&str; 2] = ["NAME", "REASON"];
const NOTHING: &str = "-";

/// Prints the instances of a report in columns, one line each.
pub(super) fn write(report: &Value, out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<_> = rows(report).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut lines = vec![String::new(); rows.len() + 1];
    for (column, head) in HEAD.into_iter().enumerate() {
        let cells = || rows.iter().filter_map(|row| row.get(column).map(String::as_str));
        if OPTIONAL.contains(&head) && cells().all(|cell| cell == NOTHING) {
            continue;
        }
        let width = cells().chain([head]).map(|cell| cell.chars().count()).max().unwrap_or_default();
        for (line, cell) in lines.iter_mut().zip([head].into_iter().chain(cells())) {
            line.push_str(&format!("{cell:width$}  "));
        }
    }
    lines.iter().try_for_each(|line| writeln!(out, "{}", line.trim_end()))
}

/// Names the upstreams without instances, which the table does not show.
pub(super) fn write_empty(report: &Value, out: &mut impl Write) -> io::Result<()> {
    let is_empty = |upstream: &&Value| list(upstream, "instances").next().is_none();
    for upstream in list(report, "upstreams").filter(is_empty) {
        let name = text(&upstream["name"]);
        writeln!(out, "{name} has no instances: its discovery has found none")?;
    }
    Ok(())
}

fn rows(report: &Value) -> impl Iterator<Item = [String; 11]> {
    list(report, "upstreams").flat_map(|upstream| {
        list(upstream, "instances").map(move |instance| {
            let cell = |name: &str| text(&instance[name]);
            let [called, address, state, condition] = ["name", "address", "state", "condition"].map(cell);
            let [weight, requests, streams, sessions] =
                ["weight", "requests", "streams", "sessions"].map(cell);
            let (name, deadline, reason) = (text(&upstream["name"]), deadline(instance), cell("reason"));
            [name, address, state, condition, weight, requests, streams, sessions, deadline, called, reason]
        })
    })
}

/// The elements of a list member.
pub(super) fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn deadline(instance: &Value) -> String {
    match instance.get("deadline_seconds").and_then(Value::as_u64) {
        None => NOTHING.to_owned(),
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
        Value::Null => NOTHING.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(report: &Value) -> String {
        let mut out = Vec::new();
        write(report, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn instances_stand_in_columns() {
        let mut report = json!({ "upstreams": [{ "name": "app", "instances": [
            { "address": "127.0.0.1:5001", "state": "drain", "condition": "up", "weight": 1, "requests": 12,
              "streams": 3, "sessions": 40, "deadline_seconds": 3905, "then": "close" },
            { "address": "[::1]:5002", "state": "ready", "condition": "backing_off", "weight": 10,
              "requests": 0, "streams": 0 },
        ] }] });
        let expected = "\
UPSTREAM  INSTANCE        STATE  CONDITION    WEIGHT  REQUESTS  STREAMS  SESSIONS  DEADLINE
app       127.0.0.1:5001  drain  up           1       12        3        40        1h5m5s, then close
app       [::1]:5002      ready  backing_off  10      0         0        -         -
";
        assert_eq!(written(&report), expected);
        report["upstreams"][0]["instances"][1]["reason"] = "connecting failed".into();
        report["upstreams"][0]["instances"][0]["name"] = "one".into();
        let expected = "\
UPSTREAM  INSTANCE        STATE  CONDITION    WEIGHT  REQUESTS  STREAMS  SESSIONS  DEADLINE            NAME  REASON
app       127.0.0.1:5001  drain  up           1       12        3        40        1h5m5s, then close  one   -
app       [::1]:5002      ready  backing_off  10      0         0        -         -                   -     connecting failed
";
        assert_eq!(written(&report), expected);
    }

    #[test]
    fn an_upstream_without_instances_is_told_of_apart() {
        let report = json!({ "upstreams": [{ "name": "app", "instances": [{}] }, { "name": "later", "instances": [] }] });
        let mut out = Vec::new();
        write_empty(&report, &mut out).unwrap();
        let said = "later has no instances: its discovery has found none\n";
        assert_eq!(String::from_utf8(out).unwrap(), said);
        assert_eq!(written(&json!({ "upstreams": [] })), "");
    }

    #[test]
    fn times_are_short() {
        assert_eq!([0, 59, 60, 3600].map(duration), ["0s", "59s", "1m0s", "1h0m0s"]);
    }
}
