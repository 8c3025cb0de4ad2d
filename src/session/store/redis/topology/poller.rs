//! Asks one server the same question again and again.

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

/// The shortest pause between two questions, whoever doubts.
const SHORTEST: Duration = Duration::from_millis(50);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(200));

/// A connection that lasted so long was a good one: the next is opened without the growing delays of a server that
/// accepts and then fails.
const STABLE: Duration = Duration::from_secs(1);

/// What a server answered, or why it did not.
pub(super) struct Answer {
    pub(super) from: Host,
    /// When it was asked: what it says was true then or later.
    pub(super) asked: Instant,
    pub(super) said: Result<Value, StoreError>,
}

/// One who asks a server until dropped.
pub(super) struct TopologyPoller(AbortHandle);

/// When to ask over a new connection: another server may answer at the address by now, while the one that was asked goes
/// on to say the same.
#[derive(Clone, Copy)]
pub(super) struct Reopen {
    /// After answers that this is true of.
    pub(super) after: fn(&Value) -> bool,
    pub(super) pause: Duration,
}

/// What observers of the same kind have in common.
#[derive(Clone)]
pub(super) struct PollSpec {
    pub(super) question: Cmd,
    pub(super) interval: Duration,
    pub(super) reopen: Option<Reopen>,
    /// Changes when somebody wants to know before the interval is over.
    pub(super) doubts: watch::Receiver<u64>,
    pub(super) answers: mpsc::Sender<Answer>,
}

impl TopologyPoller {
    /// Asks over one kept connection, and opens another one after any failure.
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

/// Asks over one connection, until it is lost or another one is to be opened after this pause.
async fn ask(
    host: &Host,
    mut connection: GuardedConnection,
    questions: &mut PollSpec,
) -> Result<Duration, StoreError> {
    loop {
        let asked = Instant::now();
        let said = reply::checked(connection.send_packed_command(&questions.question).await);
        let said = match said {
            // Another connection would be refused the answer as well.
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
        // Whoever does not listen any more has dropped the observer as well.
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
