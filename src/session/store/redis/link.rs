//! One connection to Redis: opened, used by many calls at once, tested.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{MultiplexedConnection, SendError};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, PushInfo,
    PushKind, TlsCertificates, cmd,
};
use tokio::sync::Notify;

use crate::config;
use crate::secret::Secret;

use super::super::StoreError;
use super::reply;

/// Unacknowledged bytes and silence end a connection after this long, whoever is waiting.
const DEAD_PEER: Duration = Duration::from_secs(2);
/// Calls that can be handed to a connection's driver before the next one waits for it.
const PIPELINE_BUFFER: usize = 1024;
/// Pings without an answer that make a connection dead.
const MISSED_PINGS: usize = 2;

/// Why a store could not be started. Names no part of the URL.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the URL of the session store is malformed")]
    Url,
    #[error("{path} cannot be read")]
    ReadCa { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no usable certificate, or the session store's URL is not rediss://")]
    Ca { path: PathBuf },
}

/// Opens connections.
pub(super) struct Connector {
    client: Client,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl Connector {
    pub(super) fn new(url: &Secret<String>, config: &config::Store) -> Result<Self, StartError> {
        let info = url.expose().as_str().into_connection_info().map_err(|_| StartError::Url)?;
        Ok(Connector {
            client: client(with_settings(info), config.ca.as_ref())?,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
        })
    }

    /// Opens and authenticates one connection within `connect_timeout`.
    pub(super) async fn connect(&self) -> Result<Link, StoreError> {
        let trouble = Arc::new(Notify::new());
        let connection = self.open(on_disconnect(Arc::clone(&trouble))).await?;
        Ok(Link {
            connection,
            in_flight: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            trouble,
        })
    }

    /// As [`Connector::connect`], with `pushed` for all that the server says unasked. It runs before any reply
    /// that follows is given to its caller, and must not block.
    pub(super) async fn open(
        &self,
        pushed: impl Fn(PushInfo) -> Result<(), SendError> + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.response_timeout))
            .set_pipeline_buffer_size(PIPELINE_BUFFER)
            .set_push_sender(pushed);
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
        connection.map_err(reply::kind_of)
    }
}

fn with_settings(info: ConnectionInfo) -> ConnectionInfo {
    let keepalive = TcpKeepalive::new().with_time(DEAD_PEER).with_interval(DEAD_PEER);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(DEAD_PEER);
    // Only RESP3 tells at once, through a push, that a connection is gone.
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
    info.set_tcp_settings(tcp).set_redis_settings(redis)
}

fn client(info: ConnectionInfo, ca: Option<&PathBuf>) -> Result<Client, StartError> {
    let Some(path) = ca else { return Client::open(info).map_err(|_| StartError::Url) };
    let pem = std::fs::read(path).map_err(|source| StartError::ReadCa { path: path.clone(), source })?;
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    Client::build_with_tls(info, certificates).map_err(|_| StartError::Ca { path: path.clone() })
}

fn on_disconnect(trouble: Arc<Notify>) -> impl Fn(PushInfo) -> Result<(), SendError> {
    move |push| {
        if push.kind == PushKind::Disconnection {
            trouble.notify_one();
        }
        Ok(())
    }
}

/// A connection and what its supervisor must know about it.
pub(super) struct Link {
    connection: MultiplexedConnection,
    pub(super) in_flight: AtomicUsize,
    /// Set by every call, cleared by the supervisor.
    pub(super) used: AtomicBool,
    condemned: AtomicBool,
    trouble: Arc<Notify>,
}

impl Link {
    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Tells the supervisor what may be wrong with the connection. A time-out and a lost
    /// connection call for a test; a primary that has become a replica is not ours any more.
    pub(super) fn report(&self, error: StoreError) {
        match error {
            StoreError::ReadOnly => self.condemned.store(true, Ordering::Relaxed),
            StoreError::Timeout | StoreError::Disconnected | StoreError::Protocol => (),
            _ => return,
        }
        self.trouble.notify_one();
    }

    /// Completes when somebody saw a sign of trouble.
    pub(super) async fn troubled(&self) {
        self.trouble.notified().await;
    }

    /// Whether the connection can still be used: the server answers a ping, whatever it says.
    pub(super) async fn is_sound(&self) -> bool {
        let ping: Cmd = cmd("PING");
        for _ in 0..MISSED_PINGS {
            if self.condemned.load(Ordering::Relaxed) {
                return false;
            }
            match self.connection().send_packed_command(&ping).await {
                Ok(_) => return true,
                Err(error) if error.is_timeout() => (),
                Err(_) => return false,
            }
        }
        false
    }
}
