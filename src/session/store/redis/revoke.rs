//! Ending sessions for good, and the index by which those of a user are found.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Pipeline, Value, cmd};

use super::super::super::cache::Death;
use super::super::{Burial, SessionId, StoreError};
use super::topology::Primary;
use super::{RedisStore, reply};

/// Replicas are given this part of the response timeout to confirm, so that their answer is still ours to hear.
const PATIENCE: f64 = 0.8;

impl RedisStore {
    /// As [`RedisStore::bury`], and waits for the replicas. `Some` of the result says why it may yet be undone.
    pub(in super::super) async fn bury_for_good(
        &self,
        id: &SessionId,
        life: Duration,
    ) -> Result<(Burial, Option<&'static str>), StoreError> {
        let burial = self.0.codec.bury(id, Death::Revoked, life);
        let primary = self.0.pools.owner(&burial)?;
        let (buried, heirs) = tokio::join!(self.bury_at(&primary, burial), self.0.pools.heirs());
        let (burial, copies) = buried?;
        // An answer of a server that has been replaced meanwhile is worth nothing.
        self.0.pools.check_owner(&primary)?;
        Ok((burial, copies.doubt(heirs)))
    }

    async fn bury_at(&self, primary: &Primary, burial: Cmd) -> Result<(Burial, Copies), StoreError> {
        // One of its own: waiting for replicas stops everything else on a connection.
        let mut connection = primary.open(|_| Ok::<(), redis::aio::SendError>(())).await?;
        let mut first = Pipeline::with_capacity(2);
        first.add_command(burial).add_command(cmd("ROLE"));
        let replies = connection.send_packed_commands(&first).await.map(Value::Array);
        let Value::Array(replies) = reply::checked(replies)? else { return Err(StoreError::Protocol) };
        let [burial, role] = <[Value; 2]>::try_from(replies).map_err(|_| StoreError::Protocol)?;
        let (burial, replicas) = (reply::burial(&burial)?, reply::replicas(&role)?);
        if replicas == 0 {
            return Ok((burial, Copies { replicas, confirmed: Some(0) }));
        }
        let limit = self.0.response_timeout.mul_f64(PATIENCE).as_millis();
        let mut wait = cmd("WAIT");
        wait.arg(replicas).arg(u64::try_from(limit).unwrap_or(u64::MAX).max(1));
        let confirmed = match reply::checked(connection.send_packed_command(&wait).await) {
            Ok(Value::Int(confirmed)) => usize::try_from(confirmed).ok(),
            _ => None,
        };
        Ok((burial, Copies { replicas, confirmed }))
    }

    /// Notes that `id` is a session of `user` for at most `life`.
    pub(in super::super) async fn note_user(
        &self,
        user: &str,
        id: &SessionId,
        life: Duration,
    ) -> Result<(), StoreError> {
        self.command(&self.0.codec.note_user(user, id, life, unix_now())).await.map(drop)
    }

    /// The sessions of `user` that were noted and may still live.
    pub(in super::super::super) async fn sessions_of(
        &self,
        user: &str,
    ) -> Result<Vec<SessionId>, StoreError> {
        let key = self.0.codec.user_key(user);
        let mut range = cmd("ZRANGEBYSCORE");
        range.arg(key).arg(unix_now().as_secs()).arg("+inf");
        match self.command(&range).await? {
            Value::Array(ids) => ids.iter().map(session_id).collect(),
            _ => Err(StoreError::Protocol),
        }
    }
}

/// Who else has what was written.
struct Copies {
    /// Those that the primary knows.
    replicas: usize,
    /// `None` when they could not be asked.
    confirmed: Option<usize>,
}

impl Copies {
    /// Why it may be undone, when so many servers may take the place of the primary. One whose link to it is cut
    /// is none of its replicas, and may take its place nevertheless.
    fn doubt(&self, heirs: Option<usize>) -> Option<&'static str> {
        let Some(heirs) = heirs else { return Some("the sentinels could not be asked") };
        match self.confirmed {
            Some(confirmed) if confirmed >= heirs.max(self.replicas) => None,
            None => Some("the replicas could not be asked"),
            Some(_) if self.replicas == 0 => Some("the primary has no replica now"),
            Some(_) => Some("not confirmed by all replicas"),
        }
    }
}

fn session_id(value: &Value) -> Result<SessionId, StoreError> {
    match value {
        Value::BulkString(id) => match std::str::from_utf8(id) {
            Ok(id) => Ok(SessionId::new(id)),
            Err(_) => Err(StoreError::Decode),
        },
        _ => Err(StoreError::Protocol),
    }
}

/// Time since the epoch.
pub(super) fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_heir_does_not_have_may_be_undone() {
        let doubt = |replicas, confirmed, heirs| Copies { replicas, confirmed }.doubt(heirs).is_some();
        for (replicas, confirmed, heirs) in
            [(0, Some(0), Some(0)), (2, Some(2), Some(2)), (1, Some(1), Some(0))]
        {
            assert!(!doubt(replicas, confirmed, heirs), "{replicas} {confirmed:?} {heirs:?}");
        }
        for (replicas, confirmed, heirs) in [
            (0, Some(0), Some(1)),
            (1, Some(1), Some(2)),
            (2, Some(1), Some(2)),
            (2, Some(1), Some(1)),
            (2, None, Some(2)),
            (2, Some(2), None),
            (0, Some(0), None),
        ] {
            assert!(doubt(replicas, confirmed, heirs), "{replicas} {confirmed:?} {heirs:?}");
        }
    }
}
