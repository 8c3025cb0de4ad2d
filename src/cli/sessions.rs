//! `vestibule sessions`.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http::StatusCode;
use serde_json::{Value, json};

use super::admin::AdminArgs;
use super::run;
use crate::secret::Secret;

const REVOKE: &str = "/api/v1/sessions/revoke";
/// Maximum bytes of an id on standard input.
const MAX_ID: u64 = 8 << 10;

#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// End a session, or all sessions of a user
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The id of the session, or - to read it from standard input: arguments can be seen by every user of this
    /// machine (ps) and stay in the shell's history, and whoever knows the id is the user
    #[arg(value_parser = secret, required_unless_present = "user")]
    id: Option<Secret<String>>,
    /// End all sessions of this user, as session.user finds it
    #[arg(long, conflicts_with = "id")]
    user: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

fn secret(text: &str) -> Result<Secret<String>, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

/// Executes one subcommand.
pub(super) fn run(SessionsArgs { command: Command::Revoke(args) }: SessionsArgs) -> anyhow::Result<ExitCode> {
    let call = args.call(&mut io::stdin())?;
    let client = args.admin.client()?;
    run::block_on(async {
        let (status, answer) = client.post(REVOKE, &call).await?;
        report(status, &answer, &mut io::stdout(), &mut io::stderr())?;
        Ok(ExitCode::SUCCESS)
    })
}

impl RevokeArgs {
    fn call(&self, input: &mut impl Read) -> anyhow::Result<Value> {
        Ok(match (&self.id, &self.user) {
            (Some(id), _) if id.expose() == "-" => json!({ "id": read_id(input)? }),
            (Some(id), _) => json!({ "id": id.expose() }),
            (None, user) => json!({ "user": user }),
        })
    }
}

/// The id on `input`, without surrounding white space.
fn read_id(input: &mut impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    input.take(MAX_ID).read_to_string(&mut text).context("cannot read the id from standard input")?;
    match text.trim() {
        "" => bail!("standard input holds no id"),
        id => Ok(id.to_owned()),
    }
}

fn report(
    status: StatusCode,
    answer: &Value,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> io::Result<()> {
    let count = answer.get("sessions").and_then(Value::as_u64).unwrap_or_default();
    let sessions = if count == 1 { "1 session".to_owned() } else { format!("{count} sessions") };
    if status != StatusCode::ACCEPTED {
        return writeln!(out, "revoked ({sessions})");
    }
    let reason = answer.get("reason").and_then(Value::as_str).unwrap_or("no reason given");
    writeln!(out, "accepted, not yet durable: {reason} ({sessions})")?;
    writeln!(
        notes,
        "vestibule: a failure of the session store may bring back what was ended; repeat to be sure"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_on_standard_input_has_no_line_end() {
        assert_eq!(read_id(&mut &b"abc\r\n"[..]).unwrap(), "abc");
        assert_eq!(read_id(&mut &b"-abc"[..]).unwrap(), "-abc");
        assert_eq!(read_id(&mut &b" \n"[..]).unwrap_err().to_string(), "standard input holds no id");
        assert!(read_id(&mut &b"\xff"[..]).is_err());
    }

    fn reported(status: StatusCode, answer: Value) -> (String, String) {
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        report(status, &answer, &mut out, &mut notes).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(notes).unwrap())
    }

    #[test]
    fn what_was_revoked_is_counted() {
        for (count, sessions) in [(0, "0 sessions"), (1, "1 session"), (2, "2 sessions")] {
            let said = reported(StatusCode::OK, json!({ "status": "revoked", "sessions": count }));
            assert_eq!(said, (format!("revoked ({sessions})\n"), String::new()));
        }
    }

    #[test]
    fn what_is_not_durable_yet_is_said_with_its_reason() {
        let answer = json!({ "status": "accepted", "durable": false, "reason": "why", "sessions": 1 });
        let (out, notes) = reported(StatusCode::ACCEPTED, answer);
        assert_eq!(out, "accepted, not yet durable: why (1 session)\n");
        assert!(notes.starts_with("vestibule: ") && notes.ends_with("repeat to be sure\n"), "{notes}");
    }
}
