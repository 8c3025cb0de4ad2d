//! `vestibule drill`.

mod account;

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::admin::{AdminArgs, AdminClient};
use super::{EXIT_USAGE, run};
use crate::config;
use crate::proxy::drill::LONGEST;
use account::Recovery;

const DRILLS: &str = "/api/v1/drills";
/// Polling interval. Each poll is also the drill's heartbeat: the drill ends after 3 seconds without one.
const PAUSE: Duration = Duration::from_millis(100);
/// Timeout of one poll.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lose every connection to the session store, and open none, for a while
    Store(Common),
    /// Treat an instance as if it had died, for a while
    Instance(InstanceArgs),
}

#[derive(Debug, Args)]
struct InstanceArgs {
    /// Its address or its name
    #[arg(value_name = "NAME|IP:PORT")]
    instance: String,
    /// Only in this upstream; default: in every upstream that it is in
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Let answers that are under way end; they are cut otherwise, as a death would
    #[arg(long)]
    keep_open: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// How long, such as 10s; at most 5m
    #[arg(long = "for", value_name = "TIME")]
    time: String,
    /// How long to look at the users before, to compare with; at most as long as --for
    #[arg(long, value_name = "TIME", default_value = "10s")]
    before: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Print the account as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Executes one drill.
pub(super) fn run(DrillArgs { command }: DrillArgs) -> anyhow::Result<ExitCode> {
    let (target, common) = match command {
        Command::Store(common) => (Map::from_iter([("store".to_owned(), true.into())]), common),
        Command::Instance(args) => args.target(),
    };
    if !common.yes && !io::stdin().is_terminal() {
        eprintln!("vestibule: a drill hurts users: with nobody to ask at a terminal it needs --yes");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let time = config::duration(&common.time).filter(|time| !time.is_zero() && *time <= LONGEST);
    let time = time.context("--for is to be from 1ms to 5m, such as 10s")?;
    let before = config::duration(&common.before).context("--before is no time: write it like 10s")?;
    let client = common.admin.client()?;
    run::block_on(rehearse(&client, target, &common, before.min(time)))
}

impl InstanceArgs {
    fn target(self) -> (Map<String, Value>, Common) {
        let open = if self.keep_open { "keep" } else { "cut" };
        let mut target =
            Map::from_iter([("instance".to_owned(), self.instance.into()), ("open".to_owned(), open.into())]);
        target.extend(self.upstream.map(|name| ("upstream".to_owned(), name.into())));
        (target, self.common)
    }
}

async fn rehearse(
    client: &AdminClient,
    target: Map<String, Value>,
    common: &Common,
    before: Duration,
) -> anyhow::Result<ExitCode> {
    let call = |action: &str, more: Value| {
        let mut call = target.clone();
        call.insert("action".to_owned(), action.into());
        call.extend(more.as_object().cloned().unwrap_or_default());
        Value::Object(call)
    };
    let (_, preview) = client.post(DRILLS, &call("measure", json!({}))).await?;
    let measured = Instant::now() + before;
    account::announce(&preview, &common.time, &mut io::stderr())?;
    if !common.yes && !is_agreed()? {
        bail!("nothing was done");
    }
    let interrupted = async {
        // Without a signal handler the drill still ends by its own timeout.
        let _ = tokio::signal::ctrl_c().await;
    };
    let mut interrupted = std::pin::pin!(interrupted);
    eprintln!("looking at the users for {before:?} before the drill");
    tokio::select! {
        () = sleep_until(measured) => {}
        () = &mut interrupted => bail!("nothing was done"),
    }
    let (_, begun) = client.post(DRILLS, &call("begin", json!({ "for": common.time }))).await?;
    eprintln!("the drill runs for {}; Ctrl-C ends it", common.time);
    let id = begun.get("id").cloned().unwrap_or_default();
    let (done, is_whole) = tokio::select! {
        done = follow(client, &id) => (done?, true),
        () = &mut interrupted => (end(client, &id).await?, false),
    };
    if common.json {
        writeln!(io::stdout(), "{done}")?;
    } else {
        account::write(&done, &mut io::stdout())?;
    }
    let is_whole = is_whole && done.get("ended_by").is_some_and(|by| by == "time");
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Polls until the drill is over and the system has recovered, or the maximum wait has passed.
async fn follow(client: &AdminClient, id: &Value) -> anyhow::Result<Value> {
    let mut recovery = Recovery::default();
    loop {
        let account = look(client, "continue", id).await?;
        if recovery.is_over(&account) {
            return Ok(recovery.added_to(account));
        }
        sleep(PAUSE).await;
    }
}

/// Ends the drill at once, then polls until the system has recovered.
async fn end(client: &AdminClient, id: &Value) -> anyhow::Result<Value> {
    eprintln!("ending the drill");
    look(client, "end", id).await?;
    follow(client, id).await
}

async fn look(client: &AdminClient, action: &str, id: &Value) -> anyhow::Result<Value> {
    let call = json!({ "action": action, "drill": id });
    let (_, account) = client.post_within(LOOK, DRILLS, &call).await?;
    Ok(account)
}

fn is_agreed() -> anyhow::Result<bool> {
    eprint!("begin? [y/N] ");
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
