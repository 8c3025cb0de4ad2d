//! The connections for invalidations and for writes, two to each primary.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Cmd, Pipeline, RedisError, Value, cmd};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::super::super::super::StoreError;
use super::super::call::Call;
use super::super::codec::{DEAD, INVALIDATED};
use super::super::fault_injector::GuardedConnection;
use super::super::reply;
use super::super::topology::TopologySnapshot;
use super::heartbeat::Heartbeat;

/// The connections to the primaries of a layout, in its order.
pub(super) struct Links {
    pub(super) layout: Arc<TopologySnapshot>,
    pub(super) links: Vec<Link>,
    /// Notified when any of the connections is closed.
    pub(super) closed: Arc<Notify>,
}

/// Two connections to one server. Writes over the receiving connection could hide changes of other clients:
/// Redis reports a key once per turn of its event loop, and tracking can exclude a client's own changes.
pub(super) struct Link {
    /// Receives invalidations and messages; never writes keys.
    pub(super) ear: GuardedConnection,
    /// Writes; receives no invalidations.
    pub(super) hand: GuardedConnection,
    /// `None` if the server owns no slot, because it then has no invalidations to send.
    pub(super) heartbeat: Option<Heartbeat>,
}

/// The result of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// The invalidation arrived, this long after the heartbeat was sent.
    Heard(Duration),
    /// The invalidation arrived, but the previous heartbeat key was missing: the data set has been replaced.
    Replaced,
    /// The heartbeat was written, but its invalidation did not arrive.
    Missed,
    /// The server is healthy but rejects the command.
    Refused(StoreError),
}

impl Links {
    /// Writes a heartbeat on every link and waits for it, each step within `limit`. Returns the worst result.
    pub(super) async fn beat(&self, limit: Duration) -> Result<Beat, StoreError> {
        let beats = try_join_all(self.links.iter().map(|link| link.beat(limit))).await?;
        Ok(beats.into_iter().reduce(Beat::worse).unwrap_or(Beat::Heard(Duration::ZERO)))
    }

    /// Groups commands by the server that owns their key. No command is dropped; those for a slot without an
    /// owner go to the first server, which rejects them.
    pub(super) fn errands<T>(&self, commands: impl Iterator<Item = (Cmd, T)>) -> Vec<PendingBatch<'_, T>> {
        let errand = |link| PendingBatch { link, pipeline: Pipeline::new(), about: Vec::new() };
        let mut errands: Vec<_> = self.links.iter().map(errand).collect();
        for (command, about) in commands {
            let owner = self.layout.owner_index(|| Call::One(&command).key()).unwrap_or_default();
            if let Some(errand) = errands.get_mut(owner) {
                errand.pipeline.add_command(command);
                errand.about.push(about);
            }
        }
        errands.retain(|errand| !errand.about.is_empty());
        errands
    }
}

impl Beat {
    fn worse(self, other: Beat) -> Beat {
        match (self, other) {
            (Beat::Heard(one), Beat::Heard(other)) => Beat::Heard(one.max(other)),
            (refused @ Beat::Refused(_), _) | (_, refused @ Beat::Refused(_)) => refused,
            (Beat::Missed, _) | (_, Beat::Missed) => Beat::Missed,
            _ => Beat::Replaced,
        }
    }
}

/// Commands for one server, and the caller's data for each of them.
pub(super) struct PendingBatch<'a, T> {
    link: &'a Link,
    pipeline: Pipeline,
    pub(super) about: Vec<T>,
}

impl<T> PendingBatch<'_, T> {
    pub(super) async fn send(&self) -> Result<Vec<Value>, RedisError> {
        self.link.hand.clone().send_packed_commands(&self.pipeline).await
    }
}

impl Link {
    /// Verifies that the server is a primary. If it does not permit `ROLE`, a reply to `PING` is sufficient.
    pub(super) async fn ask_role(&self, limit: Duration) -> Result<(), StoreError> {
        let role = match timeout(limit, command(&self.ear, &cmd("ROLE"))).await {
            Err(_) => return Err(StoreError::Timeout),
            Ok(Err(error)) if error.is_refusal() => return command(&self.ear, &cmd("PING")).await.map(drop),
            Ok(role) => role?,
        };
        reply::is_primary(&role).then_some(()).ok_or(StoreError::ReadOnly)
    }

    /// Turns on tracking, in broadcast mode, for all keys with this prefix and for the heartbeat keys. Our
    /// own changes are reported as well.
    pub(super) async fn track(&self, prefix: &str) -> Result<(), StoreError> {
        let mut track = cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST");
        if !prefix.is_empty() {
            track.arg("PREFIX").arg(prefix);
            let beats = self.heartbeat.as_ref().map(Heartbeat::prefix);
            // Redis rejects prefixes that overlap.
            if let Some(beats) = beats.filter(|beats| !beats.starts_with(prefix)) {
                track.arg("PREFIX").arg(beats);
            }
        }
        command(&self.ear, &track).await.map(drop)
    }

    pub(super) async fn subscribe(&self) -> Result<(), StoreError> {
        self.ear.clone().subscribe(&[INVALIDATED, DEAD]).await.map_err(reply::kind_of)
    }

    /// Writes a heartbeat and waits for its invalidation.
    ///
    /// # Errors
    /// The server did not reply, or it is no primary.
    async fn beat(&self, limit: Duration) -> Result<Beat, StoreError> {
        let (beat, ()) = tokio::try_join!(self.write_beat(limit), self.ask_role(limit))?;
        Ok(beat)
    }

    async fn write_beat(&self, limit: Duration) -> Result<Beat, StoreError> {
        let Some(heartbeat) = &self.heartbeat else { return Ok(Beat::Heard(Duration::ZERO)) };
        let (beat, expects_one_before) = heartbeat.next();
        let sent = Instant::now();
        let kept = match timeout(limit, command(&self.hand, &beat)).await {
            Err(_) => return Err(StoreError::Timeout),
            Ok(Err(error)) if error.is_refusal() => return Ok(Beat::Refused(error)),
            Ok(kept) => kept? == Value::Int(1),
        };
        match timeout(limit, heartbeat.heard()).await {
            Err(_) => Ok(Beat::Missed),
            Ok(()) if expects_one_before && !kept => Ok(Beat::Replaced),
            Ok(()) => Ok(Beat::Heard(sent.elapsed())),
        }
    }
}

async fn command(wire: &GuardedConnection, command: &Cmd) -> Result<Value, StoreError> {
    reply::checked(wire.clone().send_packed_command(command).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_beats_the_worst_counts() {
        let heard = |millis| Beat::Heard(Duration::from_millis(millis));
        let refused = Beat::Refused(StoreError::Auth);
        for (beats, worst) in [
            ([heard(1), heard(3)], heard(3)),
            ([heard(1), Beat::Replaced], Beat::Replaced),
            ([Beat::Replaced, Beat::Missed], Beat::Missed),
            ([refused, Beat::Missed], refused),
        ] {
            let [one, other] = beats;
            assert_eq!((one.worse(other), other.worse(one)), (worst, worst));
        }
    }
}
