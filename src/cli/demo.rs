//! `vestibule demo`.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::Args;

use super::{run, signals};
use crate::app::AppError;
use crate::lab::demo::{Demo, DemoError, Options};

const ADMIN_PORT: u16 = 9901;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Port to serve on, on this machine only; 0 takes any free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

/// Runs the demo until a signal ends it.
pub(super) fn run(DemoArgs { port }: DemoArgs) -> anyhow::Result<ExitCode> {
    run::block_on(async move {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let options = Options { listen: local(port), admin: local(ADMIN_PORT) };
        let demo = Demo::bind(options).await.map_err(|error| explain(error, port))?;
        let shutdown = signals::shutdown()?;
        invite(&mut io::stdout(), &demo)?;
        demo.run(shutdown).await?;
        Ok(ExitCode::SUCCESS)
    })
}

fn explain(error: DemoError, port: u16) -> anyhow::Error {
    match error {
        DemoError::Proxy(AppError::Bind { source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
            anyhow!(
                "port {port} is in use by another program; choose another with --port (0 takes any free one)"
            )
        }
        error => error.into(),
    }
}

fn invite(output: &mut impl Write, demo: &Demo) -> io::Result<()> {
    let address = demo.address();
    writeln!(
        output,
        "
  Four instances of one application behind vestibule.  Open  http://{address}/  and log in.

    1  local    Each instance knows only the logins made there: three of four answers do not know you.
    2  sticky   Switch the mode: one instance serves you. Stop it, and your login is gone.
    3  shared   Switch the mode: vestibule keeps the session. Stop any instance: you stay logged in.
"
    )?;
    if let Some(admin) = demo.admin_address() {
        writeln!(output, "  Metrics: http://{admin}/metrics")?;
    }
    writeln!(output, "  Ctrl-C ends it.\n")?;
    output.flush()
}
