//! Real neighbours for the proxy under test: upstreams, clients, a Redis, and the proxy itself.

pub(crate) mod asker;
pub(crate) mod chromium;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod dns;
pub(crate) mod fault;
pub(crate) mod h2;
pub(crate) mod metrics;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod redis_cluster;
pub(crate) mod redis_sentinel;
pub(crate) mod service;
pub(crate) mod stub;
pub(crate) mod upstream;
pub(crate) mod vestibule;
pub(crate) mod wire;
pub(crate) mod ws;

use std::net::SocketAddr;
use std::time::Duration;

/// The longest that anything in a test may take: far above what it takes when it works, on a starved machine as well.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
/// A limit in a configuration that ends nothing within [`DEADLINE`]: whatever ends something else is not this.
pub(crate) const NEVER: &str = "1h";

/// Awaits `future`, or fails the test with `what` after [`DEADLINE`].
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: nothing for {DEADLINE:?}"),
    }
}

/// A port that refuses connections and that nobody else can take meanwhile.
pub(crate) struct RefusedPort(socket2::Socket);

impl RefusedPort {
    pub(crate) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }
}
