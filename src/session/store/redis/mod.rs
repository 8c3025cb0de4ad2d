//! Sessions in Redis, version 6 or newer.
//!
//! One round trip per call: reading a session and its TTL is one pipeline, creating one and removing
//! the one it replaces is one transaction. A restricted user needs `PING`, `HGETALL` or `GET`, `PTTL`
//! and `PEXPIRE` (before Redis 7 also `EVAL`), and to create and end sessions `MULTI`, `EXEC`, `DEL`
//! and `HSET` or `SET`.

mod codec;
mod link;
mod pool;
mod reply;
mod supervisor;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value, cmd};
use tokio_util::sync::DropGuard;

use crate::config;
use crate::secret::Secret;

use self::codec::Codec;
use self::pool::Pool;
use super::{Fields, Record, SessionId, StoreError, Ttl};

pub use link::StartError;

/// A Redis server, asked over the connections of one worker. Clones share them; dropping the last
/// clone closes them.
#[derive(Clone)]
pub struct RedisStore(Arc<Inner>);

struct Inner {
    codec: Codec,
    pool: Arc<Pool>,
    /// `PEXPIRE … GT` came with Redis 7; set when the server turns out to be older.
    without_gt: AtomicBool,
    _stop_supervisors: DropGuard,
}

/// What `PEXPIRE … GT` does, for servers that do not know it. Running as one script, nobody can
/// change the TTL between the question and the answer.
const PEXPIRE_GT: &str = "local ttl = redis.call('PTTL', KEYS[1]) \
    if ttl >= 0 and ttl < tonumber(ARGV[1]) then return redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
    return 0";

impl RedisStore {
    /// Starts to connect to `url` and keeps at it until dropped. Must be called in the runtime that
    /// will ask the store; returns at once. `rediss` needs a process-wide rustls crypto provider.
    ///
    /// # Errors
    /// A malformed URL, or a `ca` that cannot be read or used.
    pub fn start(url: &Secret<String>, config: &config::Store) -> Result<Self, StartError> {
        let connector = link::Connector::new(url, config)?;
        let (pool, stop) = Pool::start(connector, config);
        Ok(RedisStore(Arc::new(Inner {
            codec: Codec::new(config),
            pool,
            without_gt: AtomicBool::new(false),
            _stop_supervisors: stop.drop_guard(),
        })))
    }

    /// Completes when there is a connection.
    pub async fn connected(&self) {
        self.0.pool.connected().await;
    }

    pub(super) async fn load(&self, id: &SessionId, with_ttl: bool) -> Result<Option<Record>, StoreError> {
        let codec = &self.0.codec;
        let (value, ttl) = if with_ttl {
            let mut both = Pipeline::with_capacity(2);
            both.add_command(codec.read(id)).add_command(command("PTTL", codec.key(id)));
            reply::pair(self.pipeline(&both).await?)?
        } else {
            (self.command(&codec.read(id)).await?, None)
        };
        let ttl = ttl.map_or(Ok(Ttl::Unknown), reply::ttl)?;
        let fields = codec.decode(value)?;
        Ok(fields.map(|fields| Record { fields: Arc::new(fields), ttl }))
    }

    pub(super) async fn create(
        &self,
        id: &SessionId,
        fields: &Fields,
        ttl: Duration,
        replaced: Option<&SessionId>,
    ) -> Result<(), StoreError> {
        let codec = &self.0.codec;
        let mut transaction = Pipeline::with_capacity(5);
        transaction.cmd("MULTI");
        if let Some(replaced) = replaced {
            transaction.add_command(command("DEL", codec.key(replaced)));
        }
        codec.write(&mut transaction, id, fields, ttl);
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

    pub(super) async fn renew(&self, id: &SessionId, ttl: Duration) -> Result<(), StoreError> {
        let (key, millis) = (self.0.codec.key(id), codec::millis(ttl));
        if !self.0.without_gt.load(Ordering::Relaxed) {
            let renewed = self.command(command("PEXPIRE", key).arg(millis).arg("GT")).await;
            if !matches!(renewed, Err(StoreError::Rejected)) {
                return renewed.map(drop);
            }
        }
        self.command(cmd("EVAL").arg(PEXPIRE_GT).arg(1).arg(key).arg(millis)).await?;
        self.0.without_gt.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.command(&cmd("PING")).await.map(drop)
    }

    async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        let place = self.0.pool.place().await?;
        let result = place.connection().send_packed_command(command).await;
        place.checked(result)
    }

    async fn pipeline(&self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let place = self.0.pool.place().await?;
        let result = place.connection().send_packed_commands(pipeline, 0, pipeline.len()).await;
        match place.checked(result.map(Value::Array))? {
            Value::Array(values) => Ok(values),
            _ => Err(StoreError::Protocol),
        }
    }
}

/// `name key`
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
