//! `vestibule canaries`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin::AdminArgs;
use super::run;

const CANARIES: &str = "/api/v1/canaries";

#[derive(Debug, Args)]
pub(super) struct CanariesArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every canary, its share and how it compares
    List(ListArgs),
    /// Give new clients to a canary in this share; a comparison begins anew
    Set(SetArgs),
    /// Give all new clients to a canary
    Promote(RouteArgs),
    /// Take everybody back from a canary at once
    Rollback(RouteArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Print what the admin API says, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// The route as `list` shows it
    route: String,
    /// 0 to 100
    #[arg(value_parser = percent)]
    percent: f64,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct RouteArgs {
    /// The route as `list` shows it
    route: String,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Executes one subcommand.
pub(super) fn run(CanariesArgs { command }: CanariesArgs) -> anyhow::Result<ExitCode> {
    let (admin, call) = match command {
        Command::List(args) => return list(&args),
        Command::Set(args) => (args.admin, json!({ "route": args.route, "percent": args.percent })),
        Command::Promote(args) => (args.admin, json!({ "route": args.route, "action": "promote" })),
        Command::Rollback(args) => (args.admin, json!({ "route": args.route, "action": "rollback" })),
    };
    let client = admin.client()?;
    run::block_on(async {
        let (_, row) = client.post(CANARIES, &call).await?;
        report(&row, &mut io::stdout())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let client = args.admin.client()?;
    run::block_on(async {
        let list = client.get(CANARIES).await?;
        let rows = list.get("canaries").and_then(Value::as_array).context("the answer lists no canaries")?;
        match (args.json, rows.is_empty()) {
            (true, _) => writeln!(io::stdout(), "{list}")?,
            (false, true) => eprintln!("no canaries are configured: a route has one with [route.canary]"),
            (false, false) => rows.iter().try_for_each(|row| report(row, &mut io::stdout()))?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// With or without the percent sign.
fn percent(text: &str) -> anyhow::Result<f64> {
    let percent: f64 = text.strip_suffix('%').unwrap_or(text).parse()?;
    ensure!((0.0..=100.0).contains(&percent), "it is not from 0 to 100");
    Ok(percent)
}

/// One line on the canary's state, and two on the comparison.
fn report(row: &Value, out: &mut impl Write) -> io::Result<()> {
    let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or("?");
    let percent = row.get("percent").and_then(Value::as_f64).unwrap_or_default();
    let (route, stable, canary, state) = (text("route"), text("stable"), text("canary"), text("state"));
    writeln!(out, "{route}: {percent}% of {stable} to {canary}, {state}")?;
    let Some(comparison) = row.get("comparison").filter(|comparison| comparison.is_object()) else {
        return Ok(());
    };
    let side = |key: &str| {
        let number = |name: &str| comparison.pointer(&format!("/{key}/{name}")).and_then(Value::as_f64);
        let (requests, failed) = (number("requests").unwrap_or(0.0), number("failed").unwrap_or(0.0));
        let time = number("first_byte_ms").map_or(String::new(), |time| format!(", first byte {time:.1} ms"));
        format!("{requests} requests, {failed} failed{time}")
    };
    writeln!(out, "  {canary}: {}; {stable}: {}", side("canary"), side("stable"))?;
    let increase = |key: &str| {
        let part = |name: &str| comparison.pointer(&format!("/{key}/{name}")).and_then(Value::as_f64);
        let shown = |part: f64| format!("{:+.2}%", part * 100.0);
        let (from, to) = (part("from")?, part("to")?);
        Some(format!("{} ({} to {})", shown(part("estimate")?), shown(from), shown(to)))
    };
    let unknown = || "not enough yet".to_owned();
    let (errors, latency) = (increase("error_increase"), increase("latency_increase"));
    writeln!(out, "  errors {}; latency {}", errors.unwrap_or_else(unknown), latency.unwrap_or_else(unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(row: Value) -> String {
        let mut out = Vec::new();
        report(&row, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_canary_is_one_line_and_its_comparison_two() {
        let mut row = json!({
            "route": "/", "stable": "app", "canary": "app-v2", "state": "manual", "percent": 12.5, "comparison": null,
        });
        let first = "/: 12.5% of app to app-v2, manual\n";
        assert_eq!(reported(row.clone()), first);
        row["comparison"] = json!({
            "canary": { "requests": 100, "failed": 5, "first_byte_ms": 12.34 },
            "stable": { "requests": 900, "failed": 9, "first_byte_ms": null },
            "error_increase": { "estimate": 0.0456, "from": -0.01, "to": 0.1 },
            "latency_increase": null,
        });
        let rest = "  app-v2: 100 requests, 5 failed, first byte 12.3 ms; app: 900 requests, 9 failed\n  \
                    errors +4.56% (-1.00% to +10.00%); latency not enough yet\n";
        assert_eq!(reported(row), format!("{first}{rest}"));
    }

    #[test]
    fn a_share_is_a_number_with_or_without_its_sign() {
        assert_eq!(percent("12.5%").unwrap(), 12.5);
        assert_eq!(percent("0").unwrap(), 0.0);
        for wrong in ["", "%", "101", "-1", "nan", "ten"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }
}
