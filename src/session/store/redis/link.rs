//! One multiplexed connection to a Redis server: opening it, sharing it between calls, testing it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::{AsyncPushSender, SendError};
use redis::{AsyncConnectionConfig, Client, Cmd, PushInfo, PushKind, RedisResult, cmd};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::config::Host;

use super::super::StoreError;
use super::access::Access;
use super::fault_injector::GuardedConnection;
use super::reply;

/// Commands that the driver of a connection buffers. Further calls wait until the buffer has room.
const PIPELINE_BUFFER: usize = 1024;
/// Delay before another attempt is started while opening a connection.
const STAGGER: Duration = Duration::from_millis(200);
/// Value of `winner` while no attempt has completed.
const UNDECIDED: usize = usize::MAX;
/// Number of consecutive pings that may time out before a connection is considered dead.
const MISSED_PINGS: usize = 2;

/// Opens connections to one server.
pub(super) struct Connector {
    pub(super) access: Arc<Access>,
    pub(super) host: Host,
}

impl Connector {
    /// Opens and authenticates one connection within `connect_timeout`.
    pub(super) async fn connect(&self) -> Result<Link, StoreError> {
        let trouble = Arc::new(Notify::new());
        Ok(Link {
            connection: self.open(on_disconnect(Arc::clone(&trouble))).await?,
            in_flight: AtomicUsize::new(0),
            used: AtomicBool::new(false),
            condemned: AtomicBool::new(false),
            trouble,
        })
    }

    /// Like [`connect`](Self::connect), for a connection without a supervisor. `on_push` receives the RESP3
    /// pushes.
    pub(super) async fn open(&self, on_push: impl AsyncPushSender) -> Result<GuardedConnection, StoreError> {
        let opened = match self.access.is_without_resp3() {
            true => self.race(None).await,
            false => match self.race(Some(Arc::new(on_push))).await {
                Err(error) if reply::refuses_resp3(&error) => {
                    // The server is still usable in RESP2; it only sends no pushes.
                    self.access.set_without_resp3();
                    self.race(None).await
                }
                opened => opened,
            },
        };
        match &opened {
            Ok(_) => self.access.outages.reached(&self.host),
            // Fault injection is active: this is no failure of the server.
            Err(_) if self.access.switch.state().is_err() => {}
            Err(error) => self.access.outages.failed(&self.host, error),
        }
        opened.map_err(reply::kind_of).inspect_err(|error| {
            if *error == StoreError::Auth {
                self.access.refused();
            }
        })
    }

    /// Starts attempts at intervals of [`STAGGER`] and returns the result of the first that completes. When
    /// the first packet (SYN) is lost, the kernel retransmits it only after a second; another attempt may
    /// succeed much earlier.
    async fn race(&self, on_push: Option<Arc<dyn AsyncPushSender>>) -> RedisResult<GuardedConnection> {
        let winner = Arc::new(AtomicUsize::new(UNDECIDED));
        let attempt = |number: usize| {
            let (winner, on_push) = (Arc::clone(&winner), on_push.clone());
            async move {
                let mut config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(self.access.connect_timeout))
                    .set_response_timeout(Some(self.access.response_timeout))
                    .set_pipeline_buffer_size(PIPELINE_BUFFER);
                let decided = Arc::clone(&winner);
                if let Some(on_push) = on_push {
                    // Pushes of an abandoned attempt are dropped: its disconnection is not that of the
                    // connection in use.
                    config = config.set_push_sender(move |push| {
                        let is_ours = [UNDECIDED, number].contains(&decided.load(Ordering::Relaxed));
                        if is_ours { on_push.send(push) } else { Ok(()) }
                    });
                }
                let opened = self.attempt(&config).await;
                winner.store(number, Ordering::Relaxed);
                opened
            }
        };
        let mut attempts = FuturesUnordered::from_iter([attempt(0)]);
        loop {
            tokio::select! {
                Some(first) = attempts.next() => return first,
                () = sleep(STAGGER) => attempts.push(attempt(attempts.len())),
            }
        }
    }

    async fn attempt(&self, config: &AsyncConnectionConfig) -> RedisResult<GuardedConnection> {
        let state = self.access.switch.state()?;
        let client = Client::open(self.access.to(&self.host))?;
        GuardedConnection::new(client.get_multiplexed_async_connection_with_config(config).await?, state)
    }
}

fn on_disconnect(trouble: Arc<Notify>) -> impl Fn(PushInfo) -> Result<(), SendError> {
    move |push| {
        if push.kind == PushKind::Disconnection {
            trouble.notify_one();
        }
        Ok(())
    }
}

/// A connection and the state that its supervisor watches.
pub(super) struct Link {
    connection: GuardedConnection,
    /// Number of slots in use.
    pub(super) in_flight: AtomicUsize,
    /// Set by every call, cleared by the supervisor. Detects idle connections.
    pub(super) used: AtomicBool,
    /// Set when the server is no primary any more: the connection fails its next test.
    condemned: AtomicBool,
    trouble: Arc<Notify>,
}

impl Link {
    pub(super) fn connection(&self) -> GuardedConnection {
        self.connection.clone()
    }

    /// Reports an error of a call to the supervisor. A timeout, a lost connection and a protocol error cause
    /// a test of the connection. `ReadOnly` means that the primary has become a replica: the connection is
    /// not used any more.
    pub(super) fn report(&self, error: StoreError) {
        match error {
            StoreError::ReadOnly => self.condemned.store(true, Ordering::Relaxed),
            StoreError::Timeout | StoreError::Disconnected | StoreError::Protocol => (),
            _ => return,
        }
        self.trouble.notify_one();
    }

    /// Completes when an error has been reported or the connection was closed. Only the supervisor may call
    /// it.
    pub(super) async fn troubled(&self) {
        self.trouble.notified().await;
    }

    /// Whether the connection is usable: the server replies to a ping, with any reply, within
    /// [`MISSED_PINGS`] attempts.
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
