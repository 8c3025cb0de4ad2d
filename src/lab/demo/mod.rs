//! The demonstration: a person logs in, switches between local, sticky and shared sessions, stops instances,
//! and sees which instance answered and whether the login survived.
//!
//! [`Demo`] is all of it in one process. Its page is a small server of its own that stands behind the proxy as
//! one more upstream: `/` is the page, `/demo/api/…` steers. What is steered is behind [`Controls`].

mod api;
mod fleet;
mod run;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::config::Mode;

pub use run::{Demo, DemoError, Options};

/// What the page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub mode: Mode,
    /// Since when; logins from before are gone.
    pub started: SystemTime,
    /// In a fixed order; the page refers to them by their place, from 0.
    pub instances: Vec<InstanceState>,
}

/// One application instance as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceState {
    /// What the instance puts in `X-Stub-Instance`.
    pub name: String,
    pub address: SocketAddr,
    pub running: bool,
    /// Requests since it was started, health checks not counted.
    pub requests: u64,
    /// Sessions in its own memory.
    pub active_sessions: usize,
}

/// What comes of a control, in its own time.
pub type Controlled<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the page steers. Instances are named by their place in [`State::instances`].
pub trait Controls: Send + Sync + 'static {
    /// How things are now.
    fn state(&self) -> Controlled<'_, State>;

    /// Switches where sessions live; resolves when new requests meet the new mode.
    fn set_mode(&self, mode: Mode) -> Controlled<'_, Result<(), ControlError>>;

    /// Stops an instance as if it had died; nothing to do when it does not run.
    fn stop(&self, instance: usize) -> Controlled<'_, Result<(), ControlError>>;

    /// Starts a stopped instance on its old address, without its old memory; nothing to do when it runs.
    fn start(&self, instance: usize) -> Controlled<'_, Result<(), ControlError>>;
}

/// Why a control did nothing.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("there is no such instance")]
    NoSuchInstance,
    #[error("it could not be done")]
    Failed(#[source] io::Error),
}

/// The page's server, bound and not serving yet.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    local_addr: SocketAddr,
}

impl Page {
    /// # Errors
    /// The system's when `address` cannot be bound.
    pub async fn bind(address: SocketAddr) -> io::Result<Page> {
        let listener = TcpListener::bind(address).await?;
        Ok(Page { local_addr: listener.local_addr()?, listener })
    }

    /// Where it serves.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves until `shutdown` resolves; then cuts what is open, for nothing here lasts.
    pub async fn run(self, controls: Arc<dyn Controls>, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.serve(controls) => {}
        }
    }

    async fn serve(self, controls: Arc<dyn Controls>) {
        let mut connections = JoinSet::new();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&controls)));
                }
                // Out of descriptors, or a caller that is already gone: give others time to leave.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn connection(stream: TcpStream, controls: Arc<dyn Controls>) {
    let service = service_fn(|request| {
        let controls = Arc::clone(&controls);
        async move { Ok::<_, Infallible>(api::answer(request, &*controls).await) }
    });
    // How a connection ends is the caller's matter.
    let _ =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
}
