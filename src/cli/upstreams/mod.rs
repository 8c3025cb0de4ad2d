//! `vestibule upstreams`.

mod progress;
mod ready;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use super::admin::{AdminArgs, AdminClient};
use super::run;
use crate::config;
use progress::{Progress, Verdict};

const UPSTREAMS: &str = "/api/v1/upstreams";
/// Polling interval.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct UpstreamsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show upstreams and their instances
    List(Output),
    /// Let an instance keep its sessions, but give it no new ones
    Drain(LeaveArgs),
    /// Give an instance no more requests
    Down(LeaveArgs),
    /// Let an instance serve again
    Ready(ReadyArgs),
    /// Change an instance's share of requests
    Weight(WeightArgs),
}

#[derive(Debug, Args)]
struct Output {
    /// Print what the admin API says, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// Its address or its name
    #[arg(value_name = "NAME|IP:PORT")]
    instance: String,
    /// Only in this upstream; default: in every upstream that it is in
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct LeaveArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// When the instance goes down, whatever still runs on it, such as 10m
    #[arg(long, value_name = "TIME")]
    deadline: Option<String>,
    /// What becomes of answers and tunnels that are under way then
    #[arg(long, value_enum)]
    then: Option<Then>,
    /// Wait until nothing is left on the instance (exit code 0), or until the deadline has passed with something
    /// left (1)
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Args)]
struct ReadyArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// Wait until a check has found the instance good (exit code 0), or until the deadline has passed (1)
    #[arg(long)]
    wait: bool,
    /// Longest wait, such as 5m; default: as long as it takes
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = time)]
    deadline: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, &'static str> {
    config::duration(text).ok_or("write a whole number and ms, s, m or h, such as 5m")
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Then {
    /// They end as they would have
    Keep,
    /// They are cut
    Close,
}

#[derive(Debug, Args)]
struct WeightArgs {
    #[command(flatten)]
    change: ChangeArgs,
    /// 0 to 1000
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1000))]
    weight: u32,
}

/// Executes one subcommand.
pub(super) fn run(UpstreamsArgs { command }: UpstreamsArgs) -> anyhow::Result<ExitCode> {
    match command {
        Command::List(output) => list(&output),
        Command::Drain(args) => leave(&args, "drain"),
        Command::Down(args) => leave(&args, "down"),
        Command::Ready(args) => ready(&args),
        Command::Weight(args) => change(&args.change, args.change.order("weight", args.weight.into())),
    }
}

fn list(output: &Output) -> anyhow::Result<ExitCode> {
    let client = output.admin.client()?;
    run::block_on(async {
        let report = client.get(UPSTREAMS).await?;
        output.show(&report, &mut io::stdout())?;
        if !output.json {
            table::write_empty(&report, &mut io::stderr())?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn change(args: &ChangeArgs, order: Map<String, Value>) -> anyhow::Result<ExitCode> {
    let client = args.output.admin.client()?;
    run::block_on(async {
        let (_, answer) = client.post(UPSTREAMS, &order.into()).await?;
        args.output.show(&Concerned::of(args, &answer).rows_of(answer), &mut io::stdout())?;
        Ok(ExitCode::SUCCESS)
    })
}

fn ready(args: &ReadyArgs) -> anyhow::Result<ExitCode> {
    let order = args.change.order("state", "ready".into());
    if !args.wait {
        return change(&args.change, order);
    }
    let client = args.change.output.admin.client()?;
    run::block_on(async {
        let (_, answer) = client.post(UPSTREAMS, &order.into()).await?;
        ready::wait(&args.change, &client, answer, args.deadline).await
    })
}

fn leave(args: &LeaveArgs, state: &str) -> anyhow::Result<ExitCode> {
    let LeaveArgs { change, deadline, then, wait } = args;
    let mut order = change.order("state", state.into());
    order.extend(deadline.as_ref().map(|time| ("deadline".to_owned(), time.as_str().into())));
    order.extend(then.map(|then| ("then".to_owned(), then.as_str().into())));
    let client = change.output.admin.client()?;
    run::block_on(async {
        let (_, answer) = client.post(UPSTREAMS, &order.into()).await?;
        let concerned = Concerned::of(change, &answer);
        let report = concerned.rows_of(answer);
        if !wait {
            change.output.show(&report, &mut io::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        wait_for_end(change, &client, &concerned, report).await
    })
}

/// Polls and prints what is left on the instance, until there is a verdict.
async fn wait_for_end(
    args: &ChangeArgs,
    client: &AdminClient,
    concerned: &Concerned,
    report: Value,
) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::new(&report);
    loop {
        // Only the instances of the order count.
        let report = concerned.rows_of(client.get(UPSTREAMS).await?);
        let (line, verdict) = progress.look(&report);
        if args.output.json {
            writeln!(io::stdout(), "{report}")?;
        } else if let Some(line) = line {
            writeln!(io::stdout(), "{line}")?;
        }
        match verdict {
            None => tokio::time::sleep(PAUSE).await,
            Some(Verdict::Nothing) => return Ok(ExitCode::SUCCESS),
            Some(Verdict::Something) => return Ok(ExitCode::FAILURE),
            Some(Verdict::Recalled) => bail!("{} was given other orders meanwhile", args.instance),
        }
    }
}

impl ChangeArgs {
    fn order(&self, name: &str, value: Value) -> Map<String, Value> {
        let instance = ("instance".to_owned(), self.instance.as_str().into());
        let upstream = self.upstream.as_ref().map(|name| ("upstream".to_owned(), name.as_str().into()));
        [instance, (name.to_owned(), value)].into_iter().chain(upstream).collect()
    }
}

/// The instance of an order, which may be given by name.
#[derive(Debug)]
struct Concerned {
    upstream: Option<String>,
    address: String,
}

impl Concerned {
    /// Resolves the instance from the response to the order, which contains no other.
    fn of(args: &ChangeArgs, answer: &Value) -> Self {
        let mut rows =
            table::list(answer, "upstreams").flat_map(|upstream| table::list(upstream, "instances"));
        let address = rows.find_map(|instance| instance["address"].as_str());
        Concerned { upstream: args.upstream.clone(), address: address.unwrap_or(&args.instance).to_owned() }
    }

    /// The rows of this instance in a report, limited to the upstreams of the order.
    fn rows_of(&self, mut report: Value) -> Value {
        if let Some(upstreams) = report.get_mut("upstreams").and_then(Value::as_array_mut) {
            upstreams.retain(|upstream| self.upstream.as_ref().is_none_or(|name| upstream["name"] == **name));
            for upstream in upstreams.iter_mut() {
                if let Some(instances) = upstream.get_mut("instances").and_then(Value::as_array_mut) {
                    instances.retain(|instance| instance["address"] == *self.address);
                }
            }
        }
        report
    }
}

impl Output {
    fn show(&self, report: &Value, out: &mut impl Write) -> io::Result<()> {
        if self.json { writeln!(out, "{report}") } else { table::write(report, out) }
    }
}

impl Then {
    fn as_str(self) -> &'static str {
        match self {
            Then::Keep => "keep",
            Then::Close => "close",
        }
    }
}
