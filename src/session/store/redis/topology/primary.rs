//! A primary, identified by its run id rather than only by its address.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use redis::aio::{AsyncPushSender, SendError};
use redis::{Pipeline, Value};
use tokio::time::Instant;

use crate::config::Host;

use super::super::super::StoreError;
use super::super::fault_injector::GuardedConnection;
use super::super::link::{Connector, Link};
use super::super::reply;
use super::State;

/// Maximum time until a new primary is admitted. During it, vestibule processes write their tombstones to it.
pub(in super::super) const ADMISSION: Duration = Duration::from_secs(1);

/// Longer than any vestibule process trusts a former primary: replies of sentinels and nodes are valid for at
/// most a second, and the lease of a cache is a quarter of `max_staleness`.
const SETTLED: Duration = Duration::from_secs(2);

/// The purpose of a connection. It is set with `CLIENT SETNAME` and shown by `CLIENT LIST`.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Purpose {
    LookUps,
    Changes,
    Writes,
    Revocation,
    Probe,
}

impl Purpose {
    fn name(self) -> &'static str {
        match self {
            Purpose::LookUps => "vestibule-look-ups",
            Purpose::Changes => "vestibule-changes",
            Purpose::Writes => "vestibule-writes",
            Purpose::Revocation => "vestibule-revocation",
            Purpose::Probe => "vestibule-probe",
        }
    }
}

/// The `run_id` of a Redis process, which is new at every start; the address of the server if that is unknown.
pub(crate) type RunId = Arc<str>;

/// A primary of the current layout. A server that leaves the layout and returns becomes a new `Primary`: if
/// two handles are equal by [`Arc::ptr_eq`], it was a primary all the time in between.
///
/// All its connections lead to the same Redis process. A connection that leads to another one, as after a
/// failover behind a fixed address, is not used. The layout then gets a new `Primary` at that address, and
/// all connections are replaced.
pub struct Primary {
    connector: Connector,
    /// The run id that the first connection reported; empty while no server has reported it.
    run: OnceLock<RunId>,
    /// Whether the warning about the missing run id has been logged.
    is_nameless: AtomicBool,
    /// All vestibule processes have written their tombstones to it.
    admitted: AtomicBool,
    /// When it became a primary of the layout.
    met: Instant,
    /// The layout to replace this primary in, when another server is found at its address.
    layout: Weak<State>,
}

impl Primary {
    pub(super) fn new(connector: Connector, layout: Weak<State>) -> Arc<Self> {
        Arc::new(Primary {
            connector,
            run: OnceLock::new(),
            is_nameless: AtomicBool::new(false),
            admitted: AtomicBool::new(false),
            met: Instant::now(),
            layout,
        })
    }

    /// The address of the server.
    pub fn host(&self) -> &Host {
        &self.connector.host
    }

    /// The run id of the server; its address while the run id is unknown.
    pub(in super::super) fn name(&self) -> RunId {
        self.run.get().map_or_else(|| self.host().to_string().into(), Arc::clone)
    }

    /// Admits this primary: the tombstones have been written to it.
    pub(in super::super) fn admit(&self) {
        self.admitted.store(true, Relaxed);
    }

    /// Whether it has been a primary for so long that no vestibule process trusts another server in its
    /// place.
    pub(super) fn is_settled(&self) -> bool {
        self.met.elapsed() >= SETTLED
    }

    /// Whether it has been admitted, or [`ADMISSION`] is over.
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Relaxed) || self.met.elapsed() >= ADMISSION
    }

    /// Opens and authenticates a separate connection within `connect_timeout`, with RESP3 if the server
    /// supports it. `on_push` receives the RESP3 pushes, including the loss of the connection.
    ///
    /// # Errors
    /// Why there is no connection to this primary. [`StoreError::PrimaryDown`] if another Redis process is at
    /// its address.
    pub(in super::super) async fn open(
        &self,
        purpose: Purpose,
        on_push: impl AsyncPushSender,
    ) -> Result<GuardedConnection, StoreError> {
        let wire = self.connector.open(on_push).await?;
        self.recognize(wire.clone(), purpose).await?;
        Ok(wire)
    }

    /// Opens and authenticates a connection for a pool.
    pub(in super::super) async fn connect(&self) -> Result<Link, StoreError> {
        let link = self.connector.connect().await?;
        self.recognize(link.connection(), Purpose::LookUps).await?;
        Ok(link)
    }

    /// Checks over a new connection whether another server is at the address now.
    pub(super) async fn look_again(&self) {
        // If another server replies, `recognize` has already replaced this primary in the layout. Other
        // errors are inconclusive.
        let _ = self.open(Purpose::Probe, |_| Ok::<_, SendError>(())).await;
    }

    /// Whether RESP3 is in use, as far as is known. Without it, the server sends no invalidations.
    pub(in super::super) fn speaks_resp3(&self) -> bool {
        !self.connector.access.is_without_resp3()
    }

    /// Verifies that a new connection leads to this primary. A server that does not permit `ROLE` or `INFO`
    /// passes.
    async fn recognize(&self, mut wire: GuardedConnection, purpose: Purpose) -> Result<(), StoreError> {
        let mut questions = Pipeline::with_capacity(3);
        questions.cmd("CLIENT").arg("SETNAME").arg(purpose.name());
        questions.cmd("ROLE");
        questions.cmd("INFO").arg("server");
        let answers = wire.send_packed_commands(&questions).await.map_err(reply::kind_of)?;
        let [_, role, server] = <[Value; 3]>::try_from(answers).map_err(|_| StoreError::Protocol)?;
        if !matches!(role, Value::ServerError(_)) && !reply::is_primary(&role) {
            return Err(StoreError::ReadOnly);
        }
        let Some(run) = reply::text(&server).and_then(run_id) else {
            if !self.is_nameless.swap(true, Relaxed) {
                tracing::warn!(
                    server = %self.host(),
                    "the session store's user may not ask INFO: another server at this address is noticed late, and \
                     revocations are not known to be durable; allow INFO"
                );
            }
            return Ok(());
        };
        if **self.run.get_or_init(|| run.into()) == *run {
            return Ok(());
        }
        if let Some(layout) = self.layout.upgrade() {
            layout.replace(self);
        }
        Err(StoreError::PrimaryDown)
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Primary").field(self.host()).finish()
    }
}

/// The `run_id` in the reply of `INFO server`.
fn run_id(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::trim).filter(|run| !run.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_servers_list_connections_by_these_names() {
        let all = [Purpose::LookUps, Purpose::Changes, Purpose::Writes, Purpose::Revocation, Purpose::Probe];
        let names = ["look-ups", "changes", "writes", "revocation", "probe"];
        assert_eq!(all.map(Purpose::name), names.map(|name| format!("vestibule-{name}")));
    }

    #[test]
    fn the_run_is_one_line_of_many() {
        assert_eq!(run_id("# Server\r\nredis_version:7.0.15\r\nrun_id:ab12\r\ntcp_port:1\r\n"), Some("ab12"));
        assert_eq!(run_id("# Server\r\nmy_run_id:ab12\r\nrun_id:\r\n"), None);
    }
}
