//! Revocation of sessions that survives failovers, and the index of a user's sessions.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::SendError;
use redis::{Cmd, Pipeline, Value, cmd};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::super::super::cache::TombstoneReason;
use super::super::{Read, SessionId, StoreError, TombstoneResult, UserIndex};
use super::fault_injector::GuardedConnection;
use super::topology::{Primary, Purpose, Replica, Successors, Unknown, replication};
use super::{RedisStore, reply};
use crate::config::Host;

/// The part of the response timeout that `WAIT` may take, so that its reply arrives before the timeout.
const PATIENCE: f64 = 0.8;

/// Timeout of a DNS lookup.
const NAME_LOOK_UP: Duration = Duration::from_millis(500);

const NOT_ALL: &str = "not confirmed by every server that may become the primary";
const UNKNOWN_REPLICAS: &str = "the session store's user may not ask INFO, so its replicas are not known";

/// Sessions, each with the script that replaces it with a tombstone.
type Burials = Vec<(SessionId, Cmd)>;

impl RedisStore {
    /// [`RedisStore::bury`] for each of `ids`, and waits for the replicas. `buried` is called for each
    /// tombstone as soon as it is written. `Some` holds the reason why a failover may still undo some of
    /// them.
    pub(in super::super) async fn bury_for_good(
        &self,
        ids: &[SessionId],
        life: Duration,
        buried: &TombstoneResult<'_>,
    ) -> Result<Option<&'static str>, StoreError> {
        let mut by_owner: Vec<(Arc<Primary>, Burials)> = Vec::new();
        for id in ids {
            let burial = self.0.codec.bury(id, TombstoneReason::Revoked, life);
            let owner = self.0.pools.owner(&burial)?;
            let burial = (id.clone(), burial);
            match by_owner.iter_mut().find(|(primary, _)| Arc::ptr_eq(primary, &owner)) {
                Some((_, burials)) => burials.push(burial),
                None => by_owner.push((owner, vec![burial])),
            }
        }
        let mut doubt = None;
        for (primary, burials) in by_owner {
            doubt = doubt.or(self.bury_at(&primary, burials, buried).await?);
        }
        Ok(doubt)
    }

    async fn bury_at(
        &self,
        primary: &Primary,
        burials: Burials,
        buried: &TombstoneResult<'_>,
    ) -> Result<Option<&'static str>, StoreError> {
        // A separate connection, because `WAIT` blocks the connection it is sent on.
        let wire = primary.open(Purpose::Revocation, |_| Ok::<(), SendError>(())).await?;
        let (at, successors) =
            tokio::join!(bury(wire.clone(), burials, buried), self.0.pools.successors(primary, wire.clone()));
        let doubt = match (at?, successors) {
            (None, _) => Some(UNKNOWN_REPLICAS),
            (_, Err(unknown)) => Some(unknown.reason()),
            (Some(at), Ok(successors)) => self.confirm(wire, at, &successors).await,
        };
        // If the server has been replaced in the meantime, its tombstones may be lost.
        self.0.pools.check_owner(primary)?;
        Ok(doubt)
    }

    /// Waits until every server that may be promoted in place of the primary has replicated up to `offset`.
    /// Returns the reason if that cannot be confirmed.
    async fn confirm(
        &self,
        mut wire: GuardedConnection,
        (offset, attached): (u64, Vec<Replica>),
        successors: &Successors,
    ) -> Option<&'static str> {
        for host in &successors.certain {
            if !is_attached(host, &attached).await {
                return Some(NOT_ALL);
            }
        }
        let needed: Vec<&Replica> =
            attached.iter().filter(|replica| !successors.never.contains(&replica.host)).collect();
        if needed.is_empty() {
            return None;
        }
        // `WAIT` makes the replicas acknowledge their offsets. Its reply is only a count and does not
        // identify them, so the offsets are read with `INFO`.
        let limit = self.0.response_timeout.mul_f64(PATIENCE).as_millis();
        let mut wait = cmd("WAIT");
        wait.arg(attached.len()).arg(u64::try_from(limit).unwrap_or(u64::MAX).max(1));
        let mut questions = Pipeline::with_capacity(2);
        questions.add_command(wait).cmd("INFO").arg("replication");
        let Ok(answers) = wire.send_packed_commands(&questions).await else { return Some(NOT_ALL) };
        let Some((_, now)) = answers.get(1).and_then(replication) else { return Some(NOT_ALL) };
        let is_there =
            |replica: &&Replica| now.iter().any(|now| now.host == replica.host && now.offset >= Some(offset));
        if needed.iter().all(is_there) { None } else { Some(NOT_ALL) }
    }

    /// Adds `id` to the index of the sessions of `user`, for at most `life`. `read` is when and where the
    /// session was read. Returns `Revoked` if all sessions of the user have been revoked since then. An entry
    /// that was written recently is not written again.
    pub(in super::super) async fn note_user(
        &self,
        user: &str,
        id: &SessionId,
        life: Duration,
        read: Option<&Read>,
    ) -> Result<UserIndex, StoreError> {
        let (notes, epoch) = self.0.pools.notes();
        let note = notes.note(user, id, epoch);
        if notes.is_recent(note) {
            return Ok(UserIndex::Noted);
        }
        match self.command(&self.0.codec.note_user(user, id, life, read)).await? {
            Value::Int(0) => {
                notes.keep(note);
                Ok(UserIndex::Noted)
            }
            Value::Int(_) => Ok(UserIndex::Revoked),
            _ => Err(StoreError::Protocol),
        }
    }

    /// Marks all sessions of `user` that have been read so far as revoked, and returns those in the index.
    /// The flag is `false` when a primary does not report its time: sessions that are being read now cannot
    /// then be distinguished from later ones.
    pub(in super::super::super) async fn revoke_user(
        &self,
        user: &str,
    ) -> Result<(Vec<SessionId>, bool), StoreError> {
        let times = self.0.pools.times().await?;
        let is_exact = times.is_some();
        let revoked = self.0.codec.revoke_user(user, &times.unwrap_or_default());
        Ok((ids(self.command(&revoked).await?)?, is_exact))
    }

    /// The sessions of `user` that were read before [`RedisStore::revoke_user`] and added to the index after
    /// it.
    pub(in super::super::super) async fn late_sessions_of(
        &self,
        user: &str,
    ) -> Result<Vec<SessionId>, StoreError> {
        ids(self.command(&self.0.codec.late_sessions_of(user)).await?)
    }

    /// Whether some vestibule process may take longer than a lease to notice a change: it receives no
    /// invalidations, or it may still trust another primary.
    pub(in super::super::super) async fn is_any_slow(&self) -> Result<bool, StoreError> {
        let is_any_unlinked = self.command(&self.0.codec.is_any_unlinked()).await? != Value::Int(0);
        Ok(is_any_unlinked || !self.0.pools.are_settled())
    }
}

/// Writes the tombstones and calls `buried` for each. Returns the replication offset after them and the
/// attached replicas; `None` if `INFO` does not report them.
async fn bury(
    mut wire: GuardedConnection,
    burials: Burials,
    buried: &TombstoneResult<'_>,
) -> Result<Option<(u64, Vec<Replica>)>, StoreError> {
    let mut all = Pipeline::with_capacity(burials.len() + 1);
    let mut ids = Vec::with_capacity(burials.len());
    for (id, burial) in burials {
        all.add_command(burial);
        ids.push(id);
    }
    all.cmd("INFO").arg("replication");
    let mut replies = wire.send_packed_commands(&all).await.map_err(reply::kind_of)?;
    let info = replies.pop().ok_or(StoreError::Protocol)?;
    for (id, reply) in ids.iter().zip(replies) {
        buried(id, reply::burial(&reply::checked(Ok(reply))?)?);
    }
    Ok(replication(&info))
}

/// Whether `host` is one of the attached replicas. A host name is resolved, because replicas are listed by IP
/// address.
async fn is_attached(host: &Host, attached: &[Replica]) -> bool {
    if attached.iter().any(|replica| replica.host == *host) {
        return true;
    }
    let found = timeout(NAME_LOOK_UP, lookup_host((host.name.as_str(), host.port))).await;
    let Ok(Ok(addresses)) = found else { return false };
    let names: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
    attached.iter().any(|replica| replica.host.port == host.port && names.contains(&replica.host.name))
}

impl Unknown {
    fn reason(self) -> &'static str {
        match self {
            Unknown::Sentinels => "too few sentinels could be asked which servers may become the primary",
            Unknown::Unannounced => "a replica that is not announced may become the primary",
            Unknown::Nodes => "the cluster could not be asked which servers may become the primary",
        }
    }
}

fn ids(reply: Value) -> Result<Vec<SessionId>, StoreError> {
    let ids = reply.as_sequence().ok_or(StoreError::Protocol)?;
    ids.iter().map(session_id).collect()
}

fn session_id(value: &Value) -> Result<SessionId, StoreError> {
    match value {
        Value::BulkString(id) => match std::str::from_utf8(id) {
            Ok(id) => Ok(SessionId::new(id)),
            Err(_) => Err(StoreError::Protocol),
        },
        _ => Err(StoreError::Protocol),
    }
}
