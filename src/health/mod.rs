//! Active health checks: one task per instance, which alone writes that instance's health.

mod streak;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::config::HealthCheck;
use crate::upstream::Instance;
use streak::Streak;

/// Why a check counts as bad.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no valid answer: {0}")]
    Answer(#[source] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[source] http::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("no answer in time")]
    TimedOut,
}

/// Starts the checks of an instance; they end when the handle is dropped. `changed` is called whenever its health
/// has changed.
pub fn watch(
    upstream: &str,
    instance: &Arc<Instance>,
    check: &HealthCheck,
    changed: impl Fn() + Send + 'static,
) -> AbortOnDropHandle<()> {
    let (name, instance, check) = (upstream.to_owned(), instance.clone(), check.clone());
    let task = async move { watch_instance(&name, &instance, &check, changed).await };
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Checks for ever. Before its first check an instance counts as up, so that a start does not refuse
/// everybody; the first check then decides alone.
async fn watch_instance(upstream: &str, instance: &Instance, check: &HealthCheck, changed: impl Fn()) {
    let mut streak = Streak::new(check.rise, check.fall);
    let mut ticks = interval(check.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let result = timeout(check.timeout, probe(instance.address, &check.path)).await;
        let result = result.unwrap_or(Err(CheckError::TimedOut));
        if result.is_ok() {
            instance.connected();
        }
        if let Some(healthy) = streak.record(result.is_ok()) {
            if instance.set_healthy(healthy) {
                changed();
            }
            match result {
                Ok(()) => tracing::info!(upstream, instance = instance.label, "instance is up"),
                Err(error) => tracing::warn!(upstream, instance = instance.label, %error, "instance is down"),
            }
        }
    }
}

/// One GET on a connection of its own; 2xx and 3xx are good.
async fn probe(address: SocketAddr, path: &str) -> Result<(), CheckError> {
    let stream = TcpStream::connect(address).await.map_err(CheckError::Connect)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(CheckError::Answer)?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, concat!("vestibule/", env!("CARGO_PKG_VERSION"), " health check"))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(CheckError::Request)?;
    let answer = tokio::select! {
        answer = sender.send_request(request) => answer,
        Err(error) = connection => Err(error),
    };
    let status = answer.map_err(CheckError::Answer)?.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(CheckError::Status(status)) }
}
