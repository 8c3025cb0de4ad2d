//! Real neighbours for the proxy under test: upstreams, clients, a Redis, and the proxy itself.

pub(crate) mod client;
pub(crate) mod h2;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod upstream;
pub(crate) mod wire;
pub(crate) mod ws;

use std::time::Duration;

/// The longest that anything in a test may take; far above what it takes when it works.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Awaits `future`, or fails the test with `what` after [`DEADLINE`].
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing for {DEADLINE:?}"),
    }
}
