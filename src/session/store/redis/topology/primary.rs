//! A server that takes writes, told apart from others that answer at the same address.

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

/// How long a new primary is not believed, at most, while vestibules tell it which sessions have ended.
pub(in super::super) const ADMISSION: Duration = Duration::from_secs(1);

/// Longer than any vestibule believes a former primary: what sentinels or nodes have said counts for a second at most,
/// and the lease of a cache is a quarter of `max_staleness`.
const SETTLED: Duration = Duration::from_secs(2);

/// What a connection is for. `CLIENT LIST` shows it.
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

/// What a server calls one run of its process, from start to end.
pub(crate) type RunId = Arc<str>;

/// A server that takes writes, as long as it is in the current layout. One that left the layout and came
/// back is another one: equal by [`Arc::ptr_eq`] means that it was a primary all the time.
///
/// All its connections lead to one run of one server. One that leads to another, as after a failover behind one
/// address, is not used: the layout gets another primary at that address, and with it all connections are replaced.
pub struct Primary {
    connector: Connector,
    /// As the first connection found it; none while no server has told it.
    run: OnceLock<RunId>,
    /// It was said that the server does not tell.
    is_nameless: AtomicBool,
    /// All vestibules have told it which sessions have ended.
    admitted: AtomicBool,
    met: Instant,
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

    /// Where it is.
    pub fn host(&self) -> &Host {
        &self.connector.host
    }

    /// Which run of a server it is; where it is if it does not tell.
    pub(in super::super) fn name(&self) -> RunId {
        self.run.get().map_or_else(|| self.host().to_string().into(), Arc::clone)
    }

    /// Lets it be believed: it knows which sessions have ended.
    pub(in super::super) fn admit(&self) {
        self.admitted.store(true, Relaxed);
    }

    /// Whether it has been a primary for so long that no vestibule believes another one in its place.
    pub(super) fn is_settled(&self) -> bool {
        self.met.elapsed() >= SETTLED
    }

    /// Whether it has been admitted, or waited for that long enough.
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Relaxed) || self.met.elapsed() >= ADMISSION
    }

    /// Opens and authenticates a RESP3 connection of one's own within `connect_timeout`; `on_push` gets what
    /// the server says unasked, the loss of the connection included.
    ///
    /// # Errors
    /// Why there is no connection to this primary.
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

    /// Finds out whether another server answers at the address by now.
    pub(super) async fn look_again(&self) {
        // `recognize` has replaced this one in the layout if another answers; silence says nothing.
        let _ = self.open(Purpose::Probe, |_| Ok::<_, SendError>(())).await;
    }

    /// Whether it speaks RESP3 with us, as far as is known; without, it reports nothing unasked.
    pub(in super::super) fn speaks_resp3(&self) -> bool {
        !self.connector.access.is_without_resp3()
    }

    /// Whether a new connection leads to this primary. A server that does not let us ask is taken for it.
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
