//! Ending sessions for good, and the index by which those of a user are found.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Pipeline, Value, cmd};

use super::super::super::cache::Death;
use super::super::{Burial, SessionId, StoreError};
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
        // One of its own: waiting for replicas stops everything else on a connection.
        let mut connection = primary.open(|_| Ok::<(), redis::aio::SendError>(())).await?;
        let mut first = Pipeline::with_capacity(2);
        first.add_command(burial).add_command(cmd("ROLE"));
        let replies = connection.send_packed_commands(&first, 0, 2).await.map(Value::Array);
        let Value::Array(replies) = reply::checked(replies)? else { return Err(StoreError::Protocol) };
        let [burial, role] = <[Value; 2]>::try_from(replies).map_err(|_| StoreError::Protocol)?;
        let (burial, replicas) = (reply::burial(&burial)?, reply::replicas(&role)?);
        if replicas == 0 {
            let alone = self.0.pools.is_single_server();
            return Ok((burial, (!alone).then_some("the primary has no replica now")));
        }
        let limit = self.0.response_timeout.mul_f64(PATIENCE).as_millis();
        let mut wait = cmd("WAIT");
        wait.arg(replicas).arg(u64::try_from(limit).unwrap_or(u64::MAX).max(1));
        let doubt = match reply::checked(connection.send_packed_command(&wait).await) {
            Ok(Value::Int(confirmed)) if usize::try_from(confirmed).is_ok_and(|count| count >= replicas) => {
                None
            }
            Ok(_) => Some("not confirmed by all replicas"),
            Err(_) => Some("the replicas could not be asked"),
        };
        // An answer of a server that has been replaced meanwhile is worth nothing.
        self.0.pools.check()?;
        Ok((burial, doubt))
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
