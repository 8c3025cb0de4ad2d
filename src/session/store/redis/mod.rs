//! The Redis session store, for Redis 6 or newer.
//!
//! Each call takes one round trip. Reading a session, its TTL and its tombstone is one pipeline; creating a
//! session is one transaction; replacing one with a tombstone is one script. Only when a session is absent
//! may a read take longer: with fixed hosts, a new connection then verifies that the server is still the one
//! at its address. Tombstones are the keys `vestibule:dead:{<key of the session>}`.
//!
//! An ACL user needs:
//!
//! - the keys of sessions and `vestibule:*`;
//! - the channels `session:invalidated` and `vestibule:*`;
//! - to read, renew and watch sessions: `PING`, `ROLE`, `INFO`, `TIME`, `GET`, `HGETALL`, `TYPE`, `GETRANGE`,
//!   `PTTL`, `PEXPIRE`, `CLIENT|TRACKING`, `SUBSCRIBE`, `EVAL`, `SET` and `DEL`; `CLIENT|SETNAME` is
//!   optional;
//! - for the index of a user's sessions: `ZADD`, `ZREMRANGEBYSCORE`, `EXPIREAT`, `ZRANGEBYSCORE`, `HGET`,
//!   `HSET`, `HDEL`, `SADD`, `SMEMBERS` and `EXPIRE`;
//! - to create and end sessions: `MULTI`, `EXEC`, `HSET` or `SET`, `DEL`, `PUBLISH` and `EVAL`;
//! - to revoke sessions: also `EXISTS` and `WAIT`;
//! - in a cluster: also `CLUSTER|SLOTS`, `CLUSTER|NODES` and `ASKING`;
//! - at sentinels: `SENTINEL|GET-MASTER-ADDR-BY-NAME`, and to revoke sessions `SENTINEL|MASTER` and
//!   `SENTINEL|REPLICAS`.

mod access;
mod call;
mod codec;
mod fault_injector;
#[cfg(test)]
mod golden;
mod invalidation;
mod link;
mod notes;
mod outages;
mod pool;
mod pools;
mod reply;
mod revoke;
mod supervisor;
mod topology;
mod witness;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};
use tokio_util::sync::DropGuard;

use crate::config;

use self::call::Call;
use self::codec::Codec;
use self::pool::Limits;
use self::pools::Pools;
use super::super::cache::TombstoneReason;
use super::super::unreadable::looks_like;
use super::super::warnings::Inspection;
use super::{Fields, Lookup, Read, Record, SessionId, StoreError, TombstoneWrite, Ttl, Unreadable};

pub use access::StartError;
pub use fault_injector::FaultInjector;
pub(super) use invalidation::{attend, watch};
pub(super) use topology::RunId;
pub use topology::Topology;

/// The Redis servers of a topology, reached over the connections of one worker. Clones share the connections;
/// dropping the last clone closes them.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    codec: Codec,
    pools: Arc<Pools>,
    response_timeout: Duration,
    _stop: DropGuard,
}

impl RedisStore {
    /// Starts to connect to the primaries of `topology`, and reconnects until dropped. Must be called on the
    /// runtime that will use the store. Returns at once.
    pub fn start(topology: Arc<Topology>, config: &config::Store) -> Self {
        let (pools, stop) = Pools::start(topology, Limits::new(config));
        RedisStore(Arc::new(Inner {
            codec: Codec::new(config),
            pools,
            response_timeout: config.response_timeout,
            _stop: stop,
        }))
    }

    /// Completes when every primary has a connection.
    pub async fn connected(&self) {
        self.0.pools.connected().await;
    }

    /// One round trip. The replies are distinguished by their types, so replies to a different call would be
    /// rejected.
    pub(super) async fn load(&self, id: &SessionId, with_ttl: bool) -> Result<Lookup, StoreError> {
        let codec = &self.0.codec;
        let ask = |questions: &mut Pipeline| {
            questions.add_command(command("GET", codec.tombstone(id))).add_command(codec.read(id));
            if with_ttl {
                questions.add_command(command("PTTL", codec.key(id)));
            }
        };
        let ((replies, at), primary) = match self.0.pools.read(ask).await {
            // Tombstones are always strings, so the value of the wrong type is the session.
            Err(StoreError::WrongType) => return Ok(Lookup::Unreadable(Unreadable::WrongType)),
            read => read?,
        };
        let mut replies = replies.into_iter();
        let mut next = || replies.next().ok_or(StoreError::Protocol);
        let (death, contents) = (reply::death(next()?)?, codec.decode(next()?)?);
        let ttl = if with_ttl { reply::ttl(next()?)? } else { Ttl::Unknown };
        Ok(match (death, contents) {
            (None, Some(Ok(contents))) => {
                let read = Read { at, by: Some(primary.name()) };
                Lookup::Found(Record { contents, ttl, read })
            }
            (None, Some(Err(why))) => Lookup::Unreadable(why),
            // An absent session is reported only if no other server has become the primary. Otherwise the
            // session may have been created there.
            (None, None) if !self.0.pools.is_alone(&primary).await => return Err(StoreError::PrimaryDown),
            (death, _) => Lookup::Absent(death),
        })
    }

    /// For diagnostics only. Returns `None` when the store does not reply.
    pub(super) async fn inspect(&self, id: &SessionId) -> Option<Inspection> {
        let kind = match self.command(&self.0.codec.kind(id)).await {
            Ok(kind) => Some(reply::text(&kind)?.to_owned()),
            Err(error) if error.is_refusal() => None,
            Err(_) => return None,
        };
        // Stays `None` if the command is not permitted or the value is no string.
        let beginning = self.command(&self.0.codec.beginning(id)).await.ok();
        let looks_like = beginning.and_then(|value| match value {
            Value::BulkString(bytes) => Some(looks_like(&bytes)),
            _ => None,
        });
        Some(Inspection { kind, looks_like })
    }

    pub(super) async fn create(
        &self,
        id: &SessionId,
        fields: &Fields,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let mut transaction = Pipeline::with_capacity(4);
        transaction.cmd("MULTI");
        self.0.codec.write(&mut transaction, id, fields, ttl);
        transaction.cmd("EXEC");
        match self.pipeline(&transaction).await?.pop() {
            Some(Value::Array(_)) => Ok(()),
            _ => Err(StoreError::Protocol),
        }
    }

    pub(super) async fn end(&self, id: &SessionId) -> Result<bool, StoreError> {
        match self.command(&command("DEL", self.0.codec.key(id))).await? {
            Value::Int(removed) => Ok(removed > 0),
            _ => Err(StoreError::Protocol),
        }
    }

    pub(super) async fn bury(
        &self,
        id: &SessionId,
        death: TombstoneReason,
        life: Duration,
    ) -> Result<TombstoneWrite, StoreError> {
        reply::burial(&self.command(&self.0.codec.bury(id, death, life)).await?)
    }

    pub(super) async fn renew(&self, id: &SessionId, ttl: Duration) -> Result<(), StoreError> {
        let codec = &self.0.codec;
        if !codec.is_without_gt() {
            let renewed = self.command(&codec.renew(id, ttl)).await;
            if !matches!(renewed, Err(StoreError::Rejected)) {
                return renewed.map(drop);
            }
            codec.set_without_gt();
        }
        self.command(&codec.renew(id, ttl)).await.map(drop)
    }

    /// The server's time since the Unix epoch; `None` if the server refuses `TIME`.
    pub(super) async fn time(&self) -> Result<Option<Duration>, StoreError> {
        match self.command(&cmd("TIME")).await {
            Err(error) if error.is_refusal() => Ok(None),
            time => Ok(reply::time(&time?)),
        }
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.0.pools.ping().await
    }

    async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        self.0.pools.call(Call::One(command)).await
    }

    /// All commands must be about keys of one slot.
    async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        match self.0.pools.call(Call::Many(pipeline)).await? {
            Value::Array(values) => Ok(values),
            _ => Err(StoreError::Protocol),
        }
    }
}

/// Builds the command `name key`.
fn command(name: &str, key: codec::Key<'_>) -> Cmd {
    let mut command = Cmd::with_capacity(4, name.len() + key.len() + 24);
    command.arg(name).arg(key);
    command
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}
