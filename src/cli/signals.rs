//! SIGTERM and SIGINT: the first asks the process to end, the second ends it. SIGHUP asks for
//! a reload, SIGUSR1 for the access log to be opened again, SIGUSR2 for an upgrade.

use std::future::Future;
use std::io;
use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::EXIT_CUT;
use crate::app::AppHandle;

/// A future that completes with the first signal; from then on a second one ends the process at once.
/// Must be called within a runtime.
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

/// Lets signals steer `app`, as long as the runtime lives that this is called in.
pub(super) fn steer(app: AppHandle) -> io::Result<()> {
    let (mut reload, mut upgrade) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
    let mut reopen = signal(SignalKind::user_defined1())?;
    let (reloaded, reopened) = (app.clone(), app.clone());
    // The app itself says how it went.
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
