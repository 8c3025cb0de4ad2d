//! The load generator: what it does arrives, and what it tells is true.

mod model;
mod protocol;
mod sessions;
mod values;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use vestibule::config::parse_scenario;
use vestibule::lab::load::{Load, LoadResult, Progress, Target, TargetOptions};

/// A load of these tables, besides a name and short times, on `target`.
pub(crate) fn load_with(tables: &str, target: &str, options: &TargetOptions) -> Load {
    let times = ["warm_up = '0s'", "duration = '1s'", "timeout = '2m'"];
    let times = times.map(|line| if tables.contains(&line[..7]) { "" } else { line }).join("\n");
    let text = format!("name = 'test'\n{times}\n{tables}");
    let scenario = parse_scenario(&text, "test").unwrap_or_else(|problems| panic!("{problems}"));
    let target = Target::new(target, options).unwrap();
    Load { scenario, target, seed: 1, threads: None }
}

pub(crate) fn load(tables: &str, target: SocketAddr) -> Load {
    load_with(tables, &format!("http://{target}"), &TargetOptions::default())
}

/// Runs it to its end.
pub(crate) async fn run(load: Load) -> LoadResult {
    let (progress, _) = watch::channel(Progress::default());
    load.run(progress, CancellationToken::new()).await.unwrap()
}

/// Waits until the load has begun and so much time has passed.
async fn wait_for(progress: &mut watch::Receiver<Progress>, passed: Duration) {
    let progress = progress.wait_for(|progress| progress.began.is_some() && progress.elapsed >= passed).await;
    progress.unwrap();
}
