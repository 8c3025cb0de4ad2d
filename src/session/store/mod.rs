//! Where sessions live.

mod error;
mod memory;
mod redis;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::config::{self, StoreKind};

use super::cache::{SessionCache, TombstoneReason};
use super::warnings::Inspection;
use super::{Contents, Fields, SessionId, Unreadable};

pub use error::StoreError;
pub use memory::MemoryStore;
use redis::RunId;
pub use redis::{FaultInjector, RedisStore, StartError, Topology};

/// A store of sessions. Clones are cheap and mean the same store.
///
/// All stores keep the same contract: a session is there or not there, and an error says neither.
/// Every call may be dropped at any time; whether a write then happened is unknown.
#[derive(Debug, Clone)]
pub enum Store {
    Memory(MemoryStore),
    Redis(RedisStore),
}

/// What the stores of all workers of a process share. Clones mean the same.
#[derive(Debug, Clone)]
pub enum Backend {
    Memory(MemoryStore),
    Redis(Arc<Topology>),
}

impl Backend {
    /// What the store that `config` describes is made of; `memory` unless it is Redis. Redis is watched on the
    /// runtime this is called in, until the last clone and store are gone.
    ///
    /// # Errors
    /// What cannot be right later either: an unusable `ca`, `certificate` or `private_key`. A server that is down
    /// is no error; its store answers [`StoreError::Disconnected`] or [`StoreError::PrimaryDown`] until it is up.
    pub fn start(config: &config::Store, memory: &MemoryStore) -> Result<Self, StartError> {
        match &config.kind {
            StoreKind::Memory => Ok(Backend::Memory(memory.clone())),
            StoreKind::Redis(url) => Topology::start(url, config).map(Backend::Redis),
        }
    }
}

impl Backend {
    /// Has new servers of the store believed only once all vestibules have told them which sessions have ended. To be
    /// called before [`Store::watch`], which sees to that.
    pub fn guard(&self) {
        match self {
            Backend::Memory(_) => (),
            Backend::Redis(topology) => topology.guard(),
        }
    }

    /// What connects this process with the store; `None` where there is nothing between the two.
    pub fn switch(&self) -> Option<&FaultInjector> {
        match self {
            Backend::Memory(_) => None,
            Backend::Redis(topology) => Some(topology.switch()),
        }
    }
}

/// What the store has under an id.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    Found(Record),
    /// No session; the death, if a tombstone tells it.
    Absent(Option<TombstoneReason>),
    /// Something that is no session as it is configured.
    Unreadable(Unreadable),
}

impl Lookup {
    pub fn found(self) -> Option<Record> {
        match self {
            Lookup::Found(record) => Some(record),
            Lookup::Absent(_) | Lookup::Unreadable(_) => None,
        }
    }
}

/// A session that was removed, and the tombstone in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TombstoneWrite {
    pub was_there: bool,
    /// How long the tombstone stays.
    pub life: Duration,
}

/// Takes note of a session that was removed.
pub(crate) type TombstoneResult<'a> = dyn Fn(&SessionId, TombstoneWrite) + Send + Sync + 'a;

/// A session as the store has it.
#[derive(Clone, PartialEq)]
pub struct Record {
    pub contents: Contents,
    pub ttl: Ttl,
    pub read: Read,
}

/// When and where a session was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Since the epoch, by the store's clock; `None` if it does not tell.
    pub at: Option<Duration>,
    /// Which run of which server has told it.
    pub(super) by: Option<RunId>,
}

/// What came of noting that a session is a user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserIndex {
    Noted,
    /// All sessions of the user have been revoked since it was read.
    Revoked,
}

/// Shows nothing of the content.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// How long the store will keep a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The store was not asked.
    Unknown,
    /// The store does not let it expire.
    Never,
    Left(Duration),
}

impl Store {
    /// The store that `config` describes, for the worker whose runtime this is called in, on what the workers
    /// share.
    pub fn open(config: &config::Store, backend: &Backend) -> Self {
        match backend {
            Backend::Memory(memory) => Store::Memory(memory.clone()),
            Backend::Redis(topology) => Store::Redis(RedisStore::start(Arc::clone(topology), config)),
        }
    }

    /// [`Backend::start`] and [`Store::open`] in one, for a process with one runtime.
    ///
    /// # Errors
    /// Those of [`Backend::start`].
    pub fn start(config: &config::Store, memory: &MemoryStore) -> Result<Self, StartError> {
        Backend::start(config, memory).map(|backend| Store::open(config, &backend))
    }

    /// Keeps `cache`, if there is one, in step with the store that `config` describes, and lets new servers of it be
    /// believed, until it is dropped or the cache is [left](SessionCache::leave); at once with the embedded store. One
    /// per process.
    pub async fn watch(config: &config::Session, backend: &Backend, cache: Option<Arc<SessionCache>>) {
        match (backend, cache) {
            (Backend::Memory(_), _) => (),
            (Backend::Redis(topology), Some(cache)) => {
                redis::watch(Arc::clone(topology), config, cache).await;
            }
            (Backend::Redis(topology), None) => redis::attend(Arc::clone(topology)).await,
        }
    }

    /// Completes when the store can be asked: at once for memory, with the first connection for Redis.
    pub async fn connected(&self) {
        match self {
            Store::Memory(_) => (),
            Store::Redis(store) => store.connected().await,
        }
    }

    /// What there is under `id`; `with_ttl` says whether to find out the session's TTL as well.
    pub async fn load(&self, id: &SessionId, with_ttl: bool) -> Result<Lookup, StoreError> {
        match self {
            Store::Memory(store) => Ok(store.load(id)),
            Store::Redis(store) => store.load(id, with_ttl).await,
        }
    }

    /// What is there in place of the session `id`, which is of the wrong type; `None` if the store does not tell.
    pub(super) async fn inspect(&self, id: &SessionId) -> Option<Inspection> {
        match self {
            Store::Memory(_) => None,
            Store::Redis(store) => store.inspect(id).await,
        }
    }

    /// Writes the new session `id`, to be kept for `ttl`. `id` must be fresh ([`SessionId::generate`]), `fields`
    /// not empty, `ttl` at least 1 ms.
    pub async fn create(&self, id: &SessionId, fields: Fields, ttl: Duration) -> Result<(), StoreError> {
        match self {
            Store::Memory(store) => {
                store.create(id, fields, ttl);
                Ok(())
            }
            Store::Redis(store) => store.create(id, &fields, ttl).await,
        }
    }

    /// Removes the session, as an application does; whether it was there.
    pub async fn end(&self, id: &SessionId) -> Result<bool, StoreError> {
        match self {
            Store::Memory(store) => Ok(store.bury(id, TombstoneReason::Revoked)),
            Store::Redis(store) => store.end(id).await,
        }
    }

    /// Removes the session and puts a tombstone in its place, so that nobody can bring it back; whether it was
    /// there. `life` is how long a session may live whose remaining time the store cannot tell.
    pub async fn write_tombstone(
        &self,
        id: &SessionId,
        death: TombstoneReason,
        life: Duration,
    ) -> Result<TombstoneWrite, StoreError> {
        match self {
            Store::Memory(store) => Ok(TombstoneWrite { was_there: store.bury(id, death), life }),
            Store::Redis(store) => store.bury(id, death, life).await,
        }
    }

    /// [`Store::write_tombstone`] of each for a revocation, which waits for the replicas as well; `buried` is told of each as soon
    /// as it is. `Some` of the result says why some may yet be undone by a failover.
    pub(crate) async fn bury_for_good(
        &self,
        ids: &[SessionId],
        life: Duration,
        buried: &TombstoneResult<'_>,
    ) -> Result<Option<&'static str>, StoreError> {
        match self {
            Store::Memory(store) => {
                ids.iter().for_each(|id| {
                    buried(id, TombstoneWrite { was_there: store.bury(id, TombstoneReason::Revoked), life });
                });
                Ok(None)
            }
            Store::Redis(store) => store.bury_for_good(ids, life, buried).await,
        }
    }

    /// Notes that `id`, which was `read` like this, is a session of `user`, for at most `life`. The embedded store
    /// knows by itself.
    pub(crate) async fn note_user(
        &self,
        user: &str,
        id: &SessionId,
        life: Duration,
        read: Option<&Read>,
    ) -> Result<UserIndex, StoreError> {
        match self {
            Store::Memory(_) => Ok(UserIndex::Noted),
            Store::Redis(store) => store.note_user(user, id, life, read).await,
        }
    }

    /// The time by which its sessions are over, since the epoch: the store's own, or ours if it does not tell.
    pub(crate) async fn time(&self) -> Result<Duration, StoreError> {
        match self {
            Store::Memory(_) => Ok(clock::steady_unix_time()),
            Store::Redis(store) => Ok(store.time().await?.unwrap_or_else(clock::unix_time)),
        }
    }

    /// Makes a session that has a TTL live for `ttl` from now, unless it would live longer anyway.
    /// Never shortens a TTL, never gives one to a session that has none, never brings one back.
    pub async fn renew(&self, id: &SessionId, ttl: Duration) -> Result<(), StoreError> {
        match self {
            Store::Memory(store) => {
                store.renew(id, ttl);
                Ok(())
            }
            Store::Redis(store) => store.renew(id, ttl).await,
        }
    }

    /// Whether the store answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Store::Memory(_) => Ok(()),
            Store::Redis(store) => store.ping().await,
        }
    }
}
