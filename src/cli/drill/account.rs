//! Human-readable output of a drill: the preview and the report.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::Value;

/// Recovery requires this long without errors.
const QUIET_MS: u64 = 1_000;
/// Maximum wait for recovery.
const LONGEST_MS: u64 = 30_000;

/// Prints what the drill would affect.
pub(super) fn announce(preview: &Value, time: &str, out: &mut impl Write) -> io::Result<()> {
    let number = |name: &str| preview[name].as_u64().unwrap_or_default();
    let target = preview["target"].as_str().unwrap_or_default();
    if let Some(others) = preview["others"].as_u64() {
        writeln!(
            out,
            "{target} will get no request for {time}, as if it had died; others that serve: {others}"
        )?;
        writeln!(
            out,
            "it has {} requests under way, {} streams among them, and {} sessions (sticky mode)",
            number("requests"),
            number("streams"),
            number("sessions")
        )
    } else {
        writeln!(out, "every connection to {target} will be lost for {time}, and none can be opened")?;
        writeln!(
            out,
            "{} requests are under way, and {} sessions in the cache",
            number("requests"),
            number("sessions")
        )
    }
}

/// Detects when the system has recovered after a drill.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Milliseconds after the drill's end since which the target works.
    well: Option<u64>,
    last_error: Option<(u64, u64)>,
}

impl Recovery {
    /// Evaluates the report `account`. Returns whether the wait is over: the system has recovered, or the
    /// maximum wait has passed.
    pub(super) fn is_over(&mut self, account: &Value) -> bool {
        let Some(now) = account["since_end_ms"].as_u64() else { return false };
        let errors = account.pointer("/after/errors").and_then(Value::as_u64).unwrap_or_default();
        if self.last_error.is_none_or(|(before, _)| errors > before) {
            self.last_error = Some((errors, if errors > 0 { now } else { 0 }));
        }
        if account["well"] == true {
            self.well.get_or_insert(now);
        } else {
            self.well = None;
        }
        self.recovered().is_some_and(|at| now >= at + QUIET_MS) || now >= LONGEST_MS
    }

    /// When the target worked again and the last error had been seen, with the resolution of the polling
    /// interval.
    fn recovered(&self) -> Option<u64> {
        Some(self.well?.max(self.last_error.map_or(0, |(_, at)| at)))
    }

    /// The report with `recovered_ms` added; null when the system did not recover in time.
    pub(super) fn added_to(&self, mut account: Value) -> Value {
        if let Some(members) = account.as_object_mut() {
            members.insert("recovered_ms".to_owned(), self.recovered().into());
        }
        account
    }
}

/// Prints a report.
pub(super) fn write(account: &Value, out: &mut impl Write) -> io::Result<()> {
    let target = account["target"].as_str().unwrap_or_default();
    let ended = account["ended_by"].as_str().unwrap_or("?");
    writeln!(out, "drill: {target}, ended by {ended}, {} answers cut when it began\n", account["cut"])?;
    let readings = [&account["before"], &account["during"], &account["after"]];
    let seconds = ["before_ms", "took_ms", "since_end_ms"].map(|name| seconds(&account[name]));
    row(out, "", ["before", "during", "after"].map(str::to_owned))?;
    row(out, "seconds", seconds)?;
    row(out, "requests", readings.map(|reading| shown(&reading["requests"])))?;
    let statuses: BTreeSet<&String> = readings
        .iter()
        .filter_map(|reading| reading["statuses"].as_object())
        .flat_map(|of| of.keys())
        .collect();
    for status in statuses {
        let name = if status == "499" { "  499 (client left)".to_owned() } else { format!("  {status}") };
        row(out, &name, readings.map(|reading| shown(member(reading, &format!("/statuses/{status}")))))?;
    }
    for (name, key) in [
        ("errors (500 and more)", "errors"),
        ("p50 ms", "p50_ms"),
        ("p99 ms", "p99_ms"),
        ("sessions denied", "sessions_denied"),
        ("ties lost", "ties_lost"),
        ("retries", "retries"),
    ] {
        row(out, name, readings.map(|reading| shown(&reading[key])))?;
    }
    for source in ["cache", "store", "stale"] {
        let name = format!("sessions from {source}");
        row(out, &name, readings.map(|reading| shown(member(reading, &format!("/sessions/{source}")))))?;
    }
    match account["recovered_ms"].as_u64() {
        Some(_) => {
            writeln!(out, "\nall well again {} s after its end", self::seconds(&account["recovered_ms"]))
        }
        None => writeln!(out, "\nnot all was well 30 s after its end"),
    }
}

fn row(out: &mut impl Write, name: &str, cells: [String; 3]) -> io::Result<()> {
    let [before, during, after] = cells;
    writeln!(out, "{name:<22} {before:>10} {during:>10} {after:>10}")
}

fn member<'a>(reading: &'a Value, pointer: &str) -> &'a Value {
    reading.pointer(pointer).unwrap_or(&Value::Null)
}

fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if value.is_f64() => format!("{number:.1}"),
        Some(_) => value.to_string(),
        None => "-".to_owned(),
    }
}

fn seconds(millis: &Value) -> String {
    millis.as_f64().map_or_else(|| "-".to_owned(), |millis| format!("{:.1}", millis / 1_000.0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_is_well_when_it_works_and_a_second_has_been_without_errors() {
        let mut recovery = Recovery::default();
        let at = |ms: u64, well: bool, errors: u64| json!({ "since_end_ms": ms, "well": well, "after": { "errors": errors } });
        assert!(!recovery.is_over(&json!({ "since_end_ms": null })));
        for (account, over) in [
            (at(0, false, 0), false),
            (at(100, true, 1), false),
            (at(300, true, 2), false),
            (at(1_200, true, 2), false),
            (at(1_300, true, 2), true),
        ] {
            assert_eq!(recovery.is_over(&account), over, "{account}");
        }
        assert_eq!(recovery.added_to(json!({}))["recovered_ms"], 300);
    }

    #[test]
    fn what_never_works_again_is_not_waited_for() {
        let mut recovery = Recovery::default();
        let at = |ms: u64| json!({ "since_end_ms": ms, "well": false, "after": { "errors": 0 } });
        assert!(!recovery.is_over(&at(29_999)) && recovery.is_over(&at(30_000)));
        assert_eq!(recovery.added_to(json!({}))["recovered_ms"], Value::Null);
    }

    #[test]
    fn an_account_is_a_table() {
        let reading = json!({
            "requests": 7, "statuses": { "200": 6, "503": 1 }, "errors": 1, "p50_ms": 2.5, "p99_ms": 4.0,
            "sessions": { "cache": 3 }, "sessions_denied": 1, "ties_lost": 0, "retries": 2,
        });
        let account = json!({
            "target": "the session store", "ended_by": "time", "cut": 0, "before": null, "before_ms": 0,
            "took_ms": 2000, "since_end_ms": 1500, "during": reading, "after": reading, "recovered_ms": 400,
        });
        let mut out = Vec::new();
        write(&account, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "drill: the session store, ended by time, 0 answers cut when it began",
            "seconds                       0.0        2.0        1.5",
            "  503                           -          1          1",
            "p99 ms                          -        4.0        4.0",
            "all well again 0.4 s after its end",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
        }
    }
}
