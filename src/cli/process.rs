//! `vestibule reload` and `vestibule upgrade`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::admin::AdminArgs;
use super::run;

/// Longer than for other calls: the new process has `upgrade.timeout` for each of several steps.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(600);

/// Reloads the configuration of a running vestibule and prints the changes.
pub(super) fn reload(args: AdminArgs) -> anyhow::Result<ExitCode> {
    let client = args.client()?;
    run::block_on(async {
        let (_, answer) = client.post("/api/v1/reload", &assumption(&args)).await?;
        report(&answer, &mut io::stdout())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Lets a new process take over from a running vestibule.
pub(super) fn upgrade(args: AdminArgs) -> anyhow::Result<ExitCode> {
    let client = args.client()?;
    run::block_on(async {
        let (_, answer) = client.post_within(UPGRADE_DEADLINE, "/api/v1/upgrade", &assumption(&args)).await?;
        let process = answer.get("process").and_then(Value::as_u64).unwrap_or_default();
        writeln!(io::stdout(), "process {process} has taken over")?;
        Ok(ExitCode::SUCCESS)
    })
}

/// The configuration file given on the command line, if any. The running vestibule refuses the call when it
/// reads another file.
fn assumption(args: &AdminArgs) -> Value {
    match args.config() {
        None => json!({}),
        Some(file) => json!({ "config": std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()) }),
    }
}

fn report(answer: &Value, out: &mut impl Write) -> io::Result<()> {
    let changes = answer.get("changes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if changes.is_empty() {
        return writeln!(out, "unchanged");
    }
    writeln!(out, "reloaded")?;
    changes.iter().filter_map(Value::as_str).try_for_each(|change| writeln!(out, "  {change}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_listed() {
        let reported = |changes: Value| {
            let mut out = Vec::new();
            report(&json!({ "changes": changes }), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(reported(json!([])), "unchanged\n");
        assert_eq!(reported(json!(["limits", "upstream a"])), "reloaded\n  limits\n  upstream a\n");
    }
}
