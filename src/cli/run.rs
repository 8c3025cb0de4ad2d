//! `vestibule run`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::{EXIT_CUT, signals};
use crate::app::{self, App, Inherited, Shortage};
use crate::config::Config;
use crate::transport;

/// Runs the proxy with `config`, which was read from `file`, until a signal ends it.
pub(super) fn run(config: Config, file: PathBuf) -> anyhow::Result<ExitCode> {
    let inheritance = Inherited::take().context("cannot take over what this process was started with")?;
    block_on(async {
        tell_shortage(&config);
        let app = App::inherit(config, inheritance)?.reloading(file);
        signals::steer(app.handle())?;
        for address in app.addresses() {
            tracing::info!(%address, "listening");
        }
        if let Some(address) = app.admin_address() {
            tracing::info!(%address, "admin listening");
        }
        let outcome = app.run(signals::shutdown()?).await?;
        if outcome.cut > 0 {
            tracing::warn!(requests = outcome.cut, "the deadline passed and requests were cut");
            return Ok(ExitCode::from(EXIT_CUT));
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn tell_shortage(config: &Config) {
    if let Some(Shortage { open_files, needed, clients, upstream_connections }) = app::shortage(config, false)
    {
        tracing::warn!(
            open_files,
            needed,
            clients,
            upstream_connections,
            "fewer files can be open than the configuration needs: at most so many clients and connections to instances \
             are served at a time"
        );
    }
}

/// Runs `task` on a current-thread runtime. Prepares the process for TLS and raises the open-file limit.
pub(super) fn block_on(task: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    transport::install_crypto();
    app::raise_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the system gives no runtime")?;
    let done = runtime.block_on(task);
    // Does not wait for blocking threads that are still busy.
    runtime.shutdown_background();
    done
}
