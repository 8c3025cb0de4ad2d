//! A Dify-style application instance: a real HTTP/1.1 server that logs people in, streams answers
//! and takes uploads the way a Dify API process does, so that a proxy in front of several of them
//! meets what it would meet in production.
//!
//! What it answers follows Dify 1.14; `X-Stub-Instance` on every answer tells the instances apart.

mod account;
mod chat;
mod connection;
mod cookies;
mod door;
mod echo;
mod engine;
mod executions;
mod feed;
mod files;
mod frames;
mod jwt;
mod latency;
mod ledger;
mod misc;
mod multipart;
mod ordered;
mod respond;
mod routes;
mod sessions;
mod state;
mod stats;
mod users;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::secret::Secret;
use state::State;

pub use ledger::Entry;
pub use routes::scale_for;
pub use sessions::Sessions;
pub use state::Handle;
pub use stats::{Connections, Snapshot, Streams};

/// How an instance is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to serve; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Where `GET /__stub/stats` is served; `None`: nowhere.
    pub stats_listen: Option<SocketAddr>,
    /// Name in `X-Stub-Instance`: visible ASCII.
    pub instance: String,
    /// Where logins are kept.
    pub sessions: Sessions,
    /// Where `POST /__stub/executions/ID` adds a line for each execution; `None`: there is no such endpoint.
    pub executions: Option<PathBuf>,
    /// Where every login, its first use here, its refusal and its end are written down; `None`: nowhere.
    pub ledger: Option<PathBuf>,
    /// Key of the access and CSRF tokens. Instances with different keys refuse each other's tokens.
    pub secret_key: Secret<String>,
    /// Factor on the measured service times; 0 = answer at once. Finite and not negative.
    pub latency_scale: f64,
    /// Median time of a login, whatever the scale; `None`: as measured, under the scale.
    pub login_time: Option<Duration>,
    /// Whether service times vary.
    pub latency_spread: Spread,
    /// The listener exists, but nothing is accepted for this long: a booting gunicorn worker.
    pub boot_delay: Duration,
    /// Connections served at a time, idle ones included; more wait in the backlog. At least 1.
    pub slots: usize,
    /// An idle connection is closed after this; greater than zero.
    pub keep_alive: Duration,
    /// After the shutdown signal running requests may go on this long; then they are cut.
    pub grace: Duration,
}

impl Default for Options {
    /// A fast instance on a port of the system's choice, with sessions in its own memory.
    fn default() -> Self {
        Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            stats_listen: None,
            instance: "stub".to_owned(),
            sessions: Sessions::Memory,
            executions: None,
            ledger: None,
            secret_key: Secret::new("stub-secret-key".to_owned()),
            latency_scale: 0.0,
            login_time: None,
            latency_spread: Spread::Lognormal,
            boot_delay: Duration::ZERO,
            slots: 1024,
            keep_alive: Duration::from_secs(2),
            grace: Duration::from_secs(30),
        }
    }
}

/// How service times are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// Always the median.
    Fixed,
    /// Lognormal between the measured median and 95th percentile.
    Lognormal,
}

/// A bound instance that does not serve yet.
#[derive(Debug)]
pub struct Stub {
    listener: TcpListener,
    stats_listener: Option<TcpListener>,
    local_addr: SocketAddr,
    stats_addr: Option<SocketAddr>,
    boot_delay: Duration,
    limits: connection::Limits,
    state: Arc<State>,
}

impl Stub {
    /// Binds the listeners; from here on clients connect and wait in the backlog until [`run`].
    ///
    /// # Errors
    /// The system's error when an address cannot be bound, `InvalidInput` when `instance` cannot
    /// stand in a header, the URL of the sessions' Redis is unusable, or that of opening the file of executions
    /// or the ledger.
    ///
    /// [`run`]: Stub::run
    pub async fn bind(options: Options) -> io::Result<Stub> {
        let state = Arc::new(State::new(&options).await?);
        let listener = TcpListener::bind(options.listen).await?;
        let stats_listener = match options.stats_listen {
            Some(address) => Some(TcpListener::bind(address).await?),
            None => None,
        };
        Ok(Stub {
            local_addr: listener.local_addr()?,
            stats_addr: stats_listener.as_ref().map(TcpListener::local_addr).transpose()?,
            listener,
            stats_listener,
            boot_delay: options.boot_delay,
            limits: connection::Limits {
                slots: options.slots,
                keep_alive: options.keep_alive,
                grace: options.grace,
            },
            state,
        })
    }

    /// Where it serves.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it serves `/__stub/stats`.
    pub fn stats_addr(&self) -> Option<SocketAddr> {
        self.stats_addr
    }

    /// Reaches into the instance while it runs.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.state))
    }

    /// Serves until `shutdown` resolves; then stops accepting, lets running requests end within the
    /// grace and cuts the rest. Cancelling it (dropping the future) cuts everything at once, as a
    /// killed process would.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Stub { listener, stats_listener, boot_delay, limits, state, .. } = self;
        let api = async {
            tokio::pin!(shutdown);
            tokio::select! {
                () = &mut shutdown => return,
                () = tokio::time::sleep(boot_delay) => {}
            }
            connection::serve(listener, limits, Arc::clone(&state), shutdown).await;
        };
        match stats_listener {
            None => api.await,
            Some(listener) => tokio::select! {
                () = api => {}
                () = stats::serve(listener, Arc::clone(&state)) => {}
            },
        }
    }
}
