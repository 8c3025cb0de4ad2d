//! Session stores: the embedded one in memory and Redis, behind one type, [`Store`].

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

/// A session store. Clones are cheap and refer to the same store.
///
/// All stores keep the same contract. A session is present or absent; an error states neither. Every call may
/// be dropped at any time; whether its write took effect is then unknown.
#[derive(Debug, Clone)]
pub enum Store {
    Memory(MemoryStore),
    Redis(RedisStore),
}

/// The part of a session store that all workers of a process share. Clones refer to the same store.
#[derive(Debug, Clone)]
pub enum Backend {
    Memory(MemoryStore),
    Redis(Arc<Topology>),
}

impl Backend {
    /// Starts the store that `config` describes: `memory`, or a Redis topology. The Redis topology is watched
    /// by tasks on the calling runtime until the last clone and the last [`Store`] are dropped.
    ///
    /// # Errors
    /// Only faults that retrying cannot repair: an unusable `ca`, `certificate` or `private_key`. An
    /// unreachable server is no error here; its store returns [`StoreError::Disconnected`] or
    /// [`StoreError::PrimaryDown`] until the server is up.
    pub fn start(config: &config::Store, memory: &MemoryStore) -> Result<Self, StartError> {
        match &config.kind {
            StoreKind::Memory => Ok(Backend::Memory(memory.clone())),
            StoreKind::Redis(url) => Topology::start(url, config).map(Backend::Redis),
        }
    }
}

impl Backend {
    /// Requires that a new primary is admitted before its responses are trusted: all vestibule processes must
    /// first have written their tombstones to it. [`Store::watch`] does the admitting, so call this before
    /// it.
    pub fn guard(&self) {
        match self {
            Backend::Memory(_) => (),
            Backend::Redis(topology) => topology.guard(),
        }
    }

    /// The fault injection switch for the connections to the store; `None` for the embedded store, which has
    /// none.
    pub fn switch(&self) -> Option<&FaultInjector> {
        match self {
            Backend::Memory(_) => None,
            Backend::Redis(topology) => Some(topology.switch()),
        }
    }
}

/// The result of looking up a session id.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    Found(Record),
    /// No session. `Some` holds the reason if the store has a tombstone for the id.
    Absent(Option<TombstoneReason>),
    /// A value is stored under the id, but it is no session in the configured format.
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

/// The result of replacing a session with a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TombstoneWrite {
    /// Whether the session existed until now.
    pub was_there: bool,
    /// The TTL of the tombstone.
    pub life: Duration,
}

/// A callback that is called once for each session that was replaced with a tombstone.
pub(crate) type TombstoneResult<'a> = dyn Fn(&SessionId, TombstoneWrite) + Send + Sync + 'a;

/// A session as read from the store.
#[derive(Clone, PartialEq)]
pub struct Record {
    pub contents: Contents,
    pub ttl: Ttl,
    /// When and where it was read. A revocation is compared with this.
    pub read: Read,
}

/// The time and the server of a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Time since the Unix epoch by the store's clock; `None` if the store does not report its time.
    pub at: Option<Duration>,
    /// The run id of the Redis process that replied, or its address if the run id is unknown; `None` for the
    /// embedded store.
    pub(super) by: Option<RunId>,
}

/// The result of adding a session to the index of a user's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UserIndex {
    /// The session is in the index.
    Noted,
    /// All sessions of the user have been revoked after this session was read.
    Revoked,
}

/// Omits the contents of the session, which must not reach logs.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// The remaining TTL of a session in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// The TTL was not requested.
    Unknown,
    /// The session has no expiry in the store.
    Never,
    /// The remaining TTL; zero if the session expired during the read.
    Left(Duration),
}

impl Store {
    /// Opens the store that `config` describes for one worker, on the shared `backend`. Connections are
    /// driven by the calling runtime, so call this on the worker's runtime.
    pub fn open(config: &config::Store, backend: &Backend) -> Self {
        match backend {
            Backend::Memory(memory) => Store::Memory(memory.clone()),
            Backend::Redis(topology) => Store::Redis(RedisStore::start(Arc::clone(topology), config)),
        }
    }

    /// Calls [`Backend::start`] and [`Store::open`], for a process with a single runtime.
    ///
    /// # Errors
    /// Those of [`Backend::start`].
    pub fn start(config: &config::Store, memory: &MemoryStore) -> Result<Self, StartError> {
        Backend::start(config, memory).map(|backend| Store::open(config, &backend))
    }

    /// Keeps `cache`, if there is one, consistent with the store that `config` describes, and admits new
    /// primaries. Runs until dropped or until the cache is [left](SessionCache::leave). Returns at once for
    /// the embedded store. Run exactly one per process.
    pub async fn watch(config: &config::Session, backend: &Backend, cache: Option<Arc<SessionCache>>) {
        match (backend, cache) {
            (Backend::Memory(_), _) => (),
            (Backend::Redis(topology), Some(cache)) => {
                redis::watch(Arc::clone(topology), config, cache).await;
            }
            (Backend::Redis(topology), None) => redis::attend(Arc::clone(topology)).await,
        }
    }

    /// Completes when the store is ready for calls: at once for the embedded store, for Redis once every
    /// primary has a connection.
    pub async fn connected(&self) {
        match self {
            Store::Memory(_) => (),
            Store::Redis(store) => store.connected().await,
        }
    }

    /// Looks up the session `id`. `with_ttl` requests its TTL as well; otherwise the TTL is [`Ttl::Unknown`].
    pub async fn load(&self, id: &SessionId, with_ttl: bool) -> Result<Lookup, StoreError> {
        match self {
            Store::Memory(store) => Ok(store.load(id)),
            Store::Redis(store) => store.load(id, with_ttl).await,
        }
    }

    /// Examines the value under `id`, which is of the wrong type, for diagnostics; `None` if the store does
    /// not reply.
    pub(super) async fn inspect(&self, id: &SessionId) -> Option<Inspection> {
        match self {
            Store::Memory(_) => None,
            Store::Redis(store) => store.inspect(id).await,
        }
    }

    /// Writes the new session `id` with a TTL of `ttl`. `id` must be fresh ([`SessionId::generate`]),
    /// `fields` must not be empty, and `ttl` must be at least 1 ms.
    pub async fn create(&self, id: &SessionId, fields: Fields, ttl: Duration) -> Result<(), StoreError> {
        match self {
            Store::Memory(store) => {
                store.create(id, fields, ttl);
                Ok(())
            }
            Store::Redis(store) => store.create(id, &fields, ttl).await,
        }
    }

    /// Deletes the session without a tombstone, as an application does. Returns whether it existed.
    pub async fn end(&self, id: &SessionId) -> Result<bool, StoreError> {
        match self {
            Store::Memory(store) => Ok(store.bury(id, TombstoneReason::Revoked)),
            Store::Redis(store) => store.end(id).await,
        }
    }

    /// Replaces the session with a tombstone. While the tombstone exists, lookups report the session as
    /// absent even if another program writes it again. `life` is the TTL of the tombstone when the store
    /// cannot tell the remaining TTL of the session.
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

    /// [`Store::write_tombstone`] for each of `ids`, for a revocation. Waits for the replicas as well.
    /// `buried` is called for each tombstone as soon as it is written. `Some` holds the reason why a failover
    /// may still undo some of them.
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

    /// Adds `id` to the index of the sessions of `user`, for at most `life`. `read` is when and where the
    /// session was read. The embedded store needs no index.
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

    /// The time since the Unix epoch that session expiry is measured by: the store's clock, or the local
    /// clock if the store does not report its time.
    pub(crate) async fn time(&self) -> Result<Duration, StoreError> {
        match self {
            Store::Memory(_) => Ok(clock::steady_unix_time()),
            Store::Redis(store) => Ok(store.time().await?.unwrap_or_else(clock::unix_time)),
        }
    }

    /// Extends the TTL of a session to `ttl` from now. Never shortens a TTL, never adds one to a session
    /// without expiry, and never recreates a session.
    pub async fn renew(&self, id: &SessionId, ttl: Duration) -> Result<(), StoreError> {
        match self {
            Store::Memory(store) => {
                store.renew(id, ttl);
                Ok(())
            }
            Store::Redis(store) => store.renew(id, ttl).await,
        }
    }

    /// Health check: succeeds if the store replies.
    pub async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Store::Memory(_) => Ok(()),
            Store::Redis(store) => store.ping().await,
        }
    }
}
