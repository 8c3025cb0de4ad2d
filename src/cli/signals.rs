//! Signals. The first SIGTERM or SIGINT begins the shutdown, the second one exits at once. SIGHUP reloads,
//! SIGUSR1 reopens the access log, SIGUSR2 upgrades.

use std::future::Future;
use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::EXIT_CUT;
use crate::app::AppHandle;

/// A future that completes with the first signal. From then on a second signal ends the process at once. Must
/// be called within a runtime.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("shutting down: running requests may end; a second signal cuts them");
        tokio::spawn(async move {
            either(&mut terminate, &mut interrupt).await;
            tracing::warn!("second signal: exiting now");
            process::exit(i32::from(EXIT_CUT));
        });
    })
}

/// Lets SIGHUP, SIGUSR1 and SIGUSR2 control `app` for the lifetime of the current runtime.
pub(super) fn steer(app: AppHandle) -> io::Result<()> {
    let (mut reload, mut upgrade) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
    let mut reopen = signal(SignalKind::user_defined1())?;
    let (reloaded, reopened) = (app.clone(), app.clone());
    // The app logs the results itself.
    tokio::spawn(async move {
        while reload.recv().await.is_some() {
            let _ = reloaded.reload().await;
        }
    });
    tokio::spawn(async move {
        while reopen.recv().await.is_some() {
            reopened.reopen_log();
        }
    });
    tokio::spawn(async move {
        while upgrade.recv().await.is_some() {
            let _ = app.upgrade().await;
        }
    });
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
