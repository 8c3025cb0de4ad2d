//! Waiting until an instance serves again.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use super::table::list;
use super::{AdminClient, ChangeArgs, Concerned, PAUSE, UPSTREAMS};

/// Polls and prints the instance's condition whenever it changes, until its health checks pass in every
/// upstream of the order. Returns at once without health checks.
pub(super) async fn wait(
    args: &ChangeArgs,
    client: &AdminClient,
    answer: Value,
    deadline: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    let concerned = Concerned::of(args, &answer);
    let (begun, mut report, mut told) = (Instant::now(), concerned.rows_of(answer), String::new());
    loop {
        let line = describe(&report);
        if args.output.json {
            writeln!(io::stdout(), "{report}")?;
        } else if line != told {
            writeln!(io::stdout(), "{line}")?;
        }
        told = line;
        if !is_everywhere(&report, "state", &["ready"]) {
            bail!("{} was given other orders meanwhile", args.instance);
        }
        if is_everywhere(&report, "condition", &["up", "unchecked"]) {
            return Ok(ExitCode::SUCCESS);
        }
        if deadline.is_some_and(|deadline| begun.elapsed() >= deadline) {
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(PAUSE).await;
        report = concerned.rows_of(client.get(UPSTREAMS).await?);
    }
}

fn rows(report: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    list(report, "upstreams")
        .flat_map(|upstream| list(upstream, "instances").map(move |instance| (upstream, instance)))
}

fn is_everywhere(report: &Value, field: &str, values: &[&str]) -> bool {
    rows(report).all(|(_, instance)| instance[field].as_str().is_some_and(|value| values.contains(&value)))
}

/// Such as `app: unproven (the last check failed: no answer in time)`.
fn describe(report: &Value) -> String {
    let lines = rows(report).map(|(upstream, instance)| {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let (name, condition) = (text(&upstream["name"]), text(&instance["condition"]));
        match instance["reason"].as_str() {
            Some(reason) => format!("{name}: {condition} ({reason})"),
            None => format!("{name}: {condition}"),
        }
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_upstream_with_the_instance_counts() {
        let report = |second: &str| {
            json!({ "upstreams": [
                { "name": "api", "instances": [{ "state": "ready", "condition": "up", "reason": "checks succeed" }] },
                { "name": "web", "instances": [{ "state": "ready", "condition": second }] },
            ] })
        };
        assert!(is_everywhere(&report("unchecked"), "condition", &["up", "unchecked"]));
        assert!(!is_everywhere(&report("unproven"), "condition", &["up", "unchecked"]));
        assert_eq!(describe(&report("unproven")), "api: up (checks succeed); web: unproven");
    }
}
