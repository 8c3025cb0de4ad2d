//! The command line.
//!
//! Exit codes: 0 success; 1 failure, invalid configuration, or work left at a deadline; 2 wrong usage (clap's
//! code); 3 requests were cut by a forced stop; 10 a load test or a comparison exceeded a limit or is worse
//! than its baseline.

mod admin;
mod canaries;
mod compare;
mod demo;
mod drill;
mod guard;
mod load;
mod process;
mod run;
mod sessions;
mod signals;
mod stub;
mod threshold;
mod upstreams;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::app;
use crate::config;
use crate::telemetry::logging;

/// Wrong usage.
const EXIT_USAGE: u8 = 2;
/// Requests were cut.
const EXIT_CUT: u8 = 3;

#[derive(Debug, Parser)]
#[command(name = "vestibule", version, about = "Session-aware L7 reverse proxy and load balancer")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How diagnostics are written to standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Least level of diagnostics: error, warn, info, debug, trace or off, or several, such as
    /// info,vestibule::session=debug
    #[arg(long, global = true, default_value = "info")]
    log_level: logging::Levels,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Run(ConfigFile),
    /// Check a configuration file and report every problem in it
    Check(ConfigFile),
    /// Have a running vestibule read its configuration again, and tell what has changed
    Reload(admin::AdminArgs),
    /// Let a new process take over from a running vestibule
    Upgrade(admin::AdminArgs),
    /// End sessions in a running vestibule
    Sessions(sessions::SessionsArgs),
    /// Show and steer second versions in a running vestibule
    Canaries(canaries::CanariesArgs),
    /// Show and steer the instances of a running vestibule
    Upstreams(upstreams::UpstreamsArgs),
    /// Compare session modes, on instances started for the purpose or on your own: which serves users better?
    Compare(compare::CompareArgs),
    /// Rehearse a failure in a running vestibule, and tell what users saw of it
    Drill(drill::DrillArgs),
    /// Show local, sticky and shared sessions in a browser: proxy and application in one process
    Demo(demo::DemoArgs),
    /// Keep a program from outliving whoever started it: it is killed when the standard input ends
    #[command(hide = true)]
    Guard(guard::GuardArgs),
    /// Ask an application as people do, and tell how it served them
    Load(load::LoadArgs),
    /// Run one Dify-style application instance, for demos, tests and load
    Stub(stub::StubArgs),
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the program. Returns its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = match cli.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(format, cli.log_level);
    dispatch(cli.command).unwrap_or_else(|error| {
        eprintln!("vestibule: {error:#}");
        ExitCode::FAILURE
    })
}

fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(file) => run::run(config::load(&file.config)?, file.config),
        Command::Check(file) => {
            let config = config::load(&file.config)?;
            config.cautions().iter().for_each(|caution| eprintln!("caution: {caution}"));
            if let Some(shortage) = app::shortage(&config, true) {
                eprintln!("caution: {shortage}");
            }
            eprintln!("{} is valid", file.config.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Reload(args) => process::reload(args),
        Command::Upgrade(args) => process::upgrade(args),
        Command::Sessions(args) => sessions::run(args),
        Command::Canaries(args) => canaries::run(args),
        Command::Upstreams(args) => upstreams::run(args),
        Command::Drill(args) => drill::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Guard(args) => guard::run(args),
        Command::Load(args) => load::run(args),
        Command::Stub(args) => stub::run(args),
    }
}
