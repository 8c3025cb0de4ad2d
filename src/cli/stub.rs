//! `vestibule stub`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use super::{run, signals};
use crate::lab::stub::{Options, Sessions, Spread, Stub};
use crate::secret::Secret;

#[derive(Debug, Args)]
pub(super) struct StubArgs {
    /// Where to serve
    #[arg(long, default_value = "127.0.0.1:5001")]
    listen: SocketAddr,
    /// Where to serve /__stub/stats; default: nowhere
    #[arg(long)]
    stats_listen: Option<SocketAddr>,
    /// Add the id of each POST to /__stub/executions/ID to this file; default: no such endpoint
    #[arg(long, value_name = "FILE")]
    executions: Option<PathBuf>,
    /// Write every login, its first use here, its refusal and its end to this file; default: nowhere
    #[arg(long, value_name = "FILE")]
    sessions_log: Option<PathBuf>,
    /// Name in X-Stub-Instance; default: the port
    #[arg(long)]
    instance: Option<String>,
    /// Where logins are kept
    #[arg(long, env = "SESSION_STORE", value_enum, default_value_t = Store::Memory)]
    session_store: Store,
    /// The shared store of --session-store=redis
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Key of the tokens; instances with different keys refuse each other's
    #[arg(
        long,
        env = "SECRET_KEY",
        hide_env_values = true,
        default_value = "stub-secret-key",
        hide_default_value = true
    )]
    secret_key: String,
    /// Factor on the service times of a real instance; 0 answers at once
    #[arg(long, default_value_t = 0.0)]
    latency_scale: f64,
    /// Median milliseconds of a login, whatever the scale; default: under the scale
    #[arg(long, value_name = "MS")]
    login_ms: Option<u64>,
    /// Always take the median service time
    #[arg(long)]
    fixed_latency: bool,
    /// Accept nobody for this many milliseconds after the start
    #[arg(long, default_value_t = 0)]
    boot_delay_ms: u64,
    /// Connections served at a time, idle ones included
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    slots: u32,
    /// Close idle connections after this many milliseconds
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    keep_alive_ms: u64,
    /// After SIGTERM running requests have this many milliseconds to end
    #[arg(long, default_value_t = 30_000)]
    grace_ms: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Store {
    /// In this instance's memory, lost when it stops
    Memory,
    /// In Redis, shared by all instances
    Redis,
    /// Nowhere: trust X-User-Id and ask the proxy to create and end sessions
    None,
}

/// Runs one instance until a signal ends it.
pub(super) fn run(args: StubArgs) -> anyhow::Result<ExitCode> {
    let options = args.options()?;
    run::block_on(async {
        let address = options.listen;
        let stub = Stub::bind(options).await.with_context(|| format!("cannot listen on {address}"))?;
        tracing::info!(address = %stub.local_addr(), "instance listening");
        if let Some(address) = stub.stats_addr() {
            tracing::info!(%address, "stats listening");
        }
        stub.run(signals::shutdown()?).await;
        Ok(ExitCode::SUCCESS)
    })
}

impl StubArgs {
    fn options(self) -> anyhow::Result<Options> {
        if !self.latency_scale.is_finite() || self.latency_scale < 0.0 {
            bail!("--latency-scale must be a number from 0 upwards");
        }
        Ok(Options {
            listen: self.listen,
            stats_listen: self.stats_listen,
            instance: self.instance.unwrap_or_else(|| self.listen.port().to_string()),
            sessions: match self.session_store {
                Store::Memory => Sessions::Memory,
                Store::None => Sessions::Header,
                Store::Redis => Sessions::Redis {
                    url: Secret::new(
                        self.redis_url.context("--session-store redis needs --redis-url or REDIS_URL")?,
                    ),
                },
            },
            executions: self.executions,
            ledger: self.sessions_log,
            secret_key: Secret::new(self.secret_key),
            latency_scale: self.latency_scale,
            login_time: self.login_ms.map(Duration::from_millis),
            latency_spread: if self.fixed_latency { Spread::Fixed } else { Spread::Lognormal },
            boot_delay: Duration::from_millis(self.boot_delay_ms),
            slots: self.slots as usize,
            keep_alive: Duration::from_millis(self.keep_alive_ms),
            grace: Duration::from_millis(self.grace_ms),
        })
    }
}
