//! Polls one server with a fixed command.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::backoff::Backoff;
use crate::config::Host;

use super::super::super::StoreError;
use super::super::fault_injector::GuardedConnection;
use super::super::link::Connector;
use super::super::reply;

/// Minimum interval between two polls, however many callers request an early one.
const SHORTEST: Duration = Duration::from_millis(50);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));

/// A connection that lived this long resets the backoff. Shorter ones do not, because a server may accept
/// connections and then fail.
const STABLE: Duration = Duration::from_secs(1);

/// The reply of a server, or the error.
pub(super) struct Answer {
    pub(super) from: Host,
    /// When the command was sent. The reply reflects the state at that time or later.
    pub(super) asked: Instant,
    pub(super) said: Result<Value, StoreError>,
}

/// A task that polls a server until this is dropped.
pub(super) struct TopologyPoller(AbortHandle);

/// When to open a new connection. After the address has moved to another server, an existing connection may
/// still lead to the former one.
#[derive(Clone, Copy)]
pub(super) struct Reopen {
    /// Reopen after a reply that satisfies this.
    pub(super) after: fn(&Value) -> bool,
    /// The pause before the new connection is opened.
    pub(super) pause: Duration,
}

/// The settings that pollers of one kind share.
#[derive(Clone)]
pub(super) struct PollSpec {
    pub(super) question: Cmd,
    pub(super) interval: Duration,
    pub(super) reopen: Option<Reopen>,
    /// A change requests an early poll.
    pub(super) doubts: watch::Receiver<u64>,
    pub(super) answers: mpsc::Sender<Answer>,
}

impl TopologyPoller {
    /// Starts polling over one kept connection, which is reopened after a failure.
    pub(super) fn start(connector: Connector, questions: PollSpec) -> Self {
        TopologyPoller(tokio::spawn(observe(connector, questions)).abort_handle())
    }
}

impl Drop for TopologyPoller {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn observe(connector: Connector, mut questions: PollSpec) {
    let mut failures = 0;
    loop {
        let asked = Instant::now();
        let lost = match connector.open(|_| Ok::<_, redis::aio::SendError>(())).await {
            Err(error) => error,
            Ok(connection) => match ask(&connector.host, connection, &mut questions).await {
                Ok(pause) => {
                    sleep(pause).await;
                    continue;
                }
                Err(error) => error,
            },
        };
        if asked.elapsed() >= STABLE {
            failures = 0;
        }
        questions.tell(&connector.host, asked, Err(lost)).await;
        sleep(BACKOFF.delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Polls over one connection. Returns the pause before it is to be reopened, or the error that ended it.
async fn ask(
    host: &Host,
    mut connection: GuardedConnection,
    questions: &mut PollSpec,
) -> Result<Duration, StoreError> {
    loop {
        let asked = Instant::now();
        let said = reply::checked(connection.send_packed_command(&questions.question).await);
        let said = match said {
            // The error is reported, but the connection is kept: the command would be refused on another one
            // as well.
            Err(error) if !error.is_refusal() => return Err(error),
            said => said,
        };
        let reopen = questions.reopen.filter(|reopen| said.as_ref().is_ok_and(reopen.after));
        questions.tell(host, asked, said).await;
        if let Some(reopen) = reopen {
            return Ok(reopen.pause);
        }
        questions.pause().await;
    }
}

impl PollSpec {
    async fn tell(&self, from: &Host, asked: Instant, said: Result<Value, StoreError>) {
        // Sending fails only when the receiver is gone; this poller is then dropped as well.
        let _ = self.answers.send(Answer { from: from.clone(), asked, said }).await;
    }

    async fn pause(&mut self) {
        sleep(SHORTEST).await;
        tokio::select! {
            () = sleep(self.interval.saturating_sub(SHORTEST)) => (),
            Ok(()) = self.doubts.changed() => (),
        }
    }
}
