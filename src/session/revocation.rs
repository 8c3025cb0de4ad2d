//! Revocation by the operator: one session by its id, or all sessions of a user.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::config;

use super::cache::{SessionCache, TombstoneReason};
use super::store::TombstoneWrite;
use super::user_index_queue::user_in;
use super::{SessionId, Store, StoreError};

/// What to revoke.
#[derive(Clone, PartialEq, Eq)]
pub enum RevokeTarget {
    Session(SessionId),
    /// All sessions of this user.
    User(String),
}

impl RevokeTarget {
    /// The token for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            RevokeTarget::Session(_) => "session",
            RevokeTarget::User(_) => "user",
        }
    }

    /// The id or the user in clear text, for computing a fingerprint.
    pub fn expose(&self) -> &str {
        match self {
            RevokeTarget::Session(id) => id.expose(),
            RevokeTarget::User(user) => user,
        }
    }
}

/// Prints neither the id nor the user.
impl fmt::Debug for RevokeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// The result of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Number of live sessions that were ended.
    pub sessions: u64,
    pub durability: Durability,
}

/// Whether a revocation survives a failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// No vestibule serves the sessions any more, and every server that may become the primary has the
    /// tombstones.
    Durable,
    /// The primary has accepted the revocation, but durability is not confirmed, for this reason.
    Accepted(&'static str),
}

/// Sessions per pipeline.
const BATCH: usize = 128;

/// Without the store's time, a look-up that is in flight during the revocation cannot be told from a login
/// after it.
const NOT_EXACT: &str =
    "the session store's user may not ask TIME, so sessions that were being looked up may go on";

/// Revokes sessions in a store.
#[derive(Debug)]
pub struct Revoker {
    store: Store,
    cache: Option<Arc<SessionCache>>,
    /// JSON Pointer to the user in a session.
    user: String,
    /// Lifetime of a tombstone where the store cannot return the session's remaining TTL.
    life: Duration,
}

impl Revoker {
    /// `cache` is the cache of resolutions from the same store, if there is one. All vestibules that share a
    /// store must have the same `max_staleness`.
    pub fn new(config: &config::Session, store: Store, cache: Option<Arc<SessionCache>>) -> Self {
        Revoker { store, cache, user: config.user.clone(), life: config.absolute_timeout }
    }

    /// Ends the sessions that `target` names. If there are none, the call succeeds. For a user, these are all
    /// sessions that any vestibule has served or is looking up.
    ///
    /// Returns when no vestibule serves them any more. This takes up to a quarter of `max_staleness`, or all
    /// of it if the store pushes no invalidations to some vestibule. If the future is dropped early, the
    /// revocation may or may not have happened.
    ///
    /// # Errors
    /// The store did not respond. It is unknown whether sessions were ended, and how many.
    pub async fn revoke(&self, target: &RevokeTarget) -> Result<Revoked, StoreError> {
        match (&self.store, target) {
            (Store::Memory(store), RevokeTarget::User(user)) => {
                let is_theirs =
                    |contents: &_| user_in(contents, &self.user).is_ok_and(|of| of.as_deref() == Some(user));
                Ok(Revoked { sessions: store.end_all(is_theirs), durability: Durability::Durable })
            }
            (_, RevokeTarget::Session(id)) => {
                let revoked = self.revoke_all(std::slice::from_ref(id)).await?;
                self.wait_for_others().await?;
                Ok(revoked)
            }
            (Store::Redis(store), RevokeTarget::User(user)) => {
                let (noted, is_exact) = store.revoke_user(user).await?;
                let ids = self.still_of(user, noted).await?;
                let mut revoked = self.revoke_all(&ids).await?;
                self.wait_for_others().await?;
                // Look-ups that were in flight have added their sessions to the user index by now.
                let late = self.still_of(user, store.late_sessions_of(user).await?).await?;
                let is_any_late = !late.is_empty();
                let late = self.revoke_all(&late).await?;
                if is_any_late {
                    self.wait_for_others().await?;
                }
                revoked.sessions += late.sessions;
                if revoked.durability == Durability::Durable {
                    revoked.durability = match is_exact {
                        true => late.durability,
                        false => Durability::Accepted(NOT_EXACT),
                    };
                }
                Ok(revoked)
            }
        }
    }

    /// Returns those of `ids` that still belong to `user`.
    async fn still_of(&self, user: &str, ids: Vec<SessionId>) -> Result<Vec<SessionId>, StoreError> {
        let mut theirs = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let are_theirs = try_join_all(batch.iter().map(|id| self.is_still_of(user, id))).await?;
            let theirs_of_it = batch.iter().zip(are_theirs).filter(|(_, is_theirs)| *is_theirs);
            theirs.extend(theirs_of_it.map(|(id, _)| id.clone()));
        }
        Ok(theirs)
    }

    /// A session that is missing, unreadable or without a user still counts as one of the user it was
    /// indexed for.
    async fn is_still_of(&self, user: &str, id: &SessionId) -> Result<bool, StoreError> {
        let found = self.store.load(id, false).await?.found();
        let now_of = found.as_ref().map_or(Ok(None), |record| user_in(&record.contents, &self.user));
        Ok(now_of.ok().flatten().is_none_or(|of| of == user))
    }

    async fn revoke_all(&self, ids: &[SessionId]) -> Result<Revoked, StoreError> {
        let (sessions, mut durability) = (AtomicU64::new(0), Durability::Durable);
        let buried = |id: &SessionId, burial: TombstoneWrite| {
            // Each tombstone is cached as soon as its reply arrives: after a failover, the cached tombstones
            // are written to the new primary, and one that is missing there would be lost.
            if let Some(cache) = &self.cache {
                cache.bury(id, TombstoneReason::Revoked, burial.life);
            }
            sessions.fetch_add(burial.was_there.into(), Relaxed);
        };
        for batch in ids.chunks(BATCH) {
            if let Some(doubt) = self.store.bury_for_good(batch, self.life, &buried).await? {
                durability = Durability::Accepted(doubt);
            }
        }
        Ok(Revoked { sessions: sessions.load(Relaxed), durability })
    }

    /// Waits as long as another vestibule may serve a session after its end: one lease of its cache, or the
    /// maximum age of its entries if the store pushes no invalidations to it. Without a cache here, the
    /// settings of the others are unknown and the default `max_staleness` is assumed.
    async fn wait_for_others(&self) -> Result<(), StoreError> {
        let Store::Redis(store) = &self.store else { return Ok(()) };
        let longest = match &self.cache {
            Some(cache) if !store.is_any_slow().await? => cache.longest_ignorance(),
            Some(cache) => cache.max_staleness,
            None => config::SessionCache::DEFAULT_MAX_STALENESS,
        };
        tokio::time::sleep(longest).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Fields, MemoryStore};
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    /// A store with sessions of these users at `/user/id`, with the ids `s0`, `s1` and so on.
    async fn revoker(users: &[Value]) -> Revoker {
        let store = Store::Memory(MemoryStore::new());
        for (number, user) in users.iter().enumerate() {
            let fields = Fields::from_iter([("user".to_owned(), json!({ "id": user }))]);
            store.create(&SessionId::new(&format!("s{number}")), fields, TTL).await.unwrap();
        }
        Revoker { store, cache: None, user: "/user/id".to_owned(), life: TTL }
    }

    async fn sessions_ended(revoker: &Revoker, target: RevokeTarget) -> u64 {
        let revoked = revoker.revoke(&target).await.unwrap();
        assert_eq!(revoked.durability, Durability::Durable);
        revoked.sessions
    }

    async fn live(revoker: &Revoker) -> Vec<usize> {
        let mut live = Vec::new();
        for number in 0..8 {
            if revoker
                .store
                .load(&SessionId::new(&format!("s{number}")), false)
                .await
                .unwrap()
                .found()
                .is_some()
            {
                live.push(number);
            }
        }
        live
    }

    #[tokio::test]
    async fn an_id_ends_its_session_once_and_an_unknown_one_nothing() {
        let revoker = revoker(&[json!("a"), json!("a")]).await;
        let session = |id: &str| RevokeTarget::Session(SessionId::new(id));
        assert_eq!(sessions_ended(&revoker, session("s1")).await, 1);
        assert_eq!(sessions_ended(&revoker, session("s1")).await, 0);
        assert_eq!(sessions_ended(&revoker, session("unknown")).await, 0);
        assert_eq!(live(&revoker).await, [0]);
    }

    #[tokio::test]
    async fn a_user_loses_all_sessions_and_nobody_else_any() {
        let users =
            [json!("42"), json!("421"), json!(42), json!(42.5), json!(["42"]), json!(null), json!("42")];
        let revoker = revoker(&users).await;
        let user = |user: &str| RevokeTarget::User(user.to_owned());
        assert_eq!(sessions_ended(&revoker, user("42")).await, 3);
        assert_eq!(sessions_ended(&revoker, user("42")).await, 0);
        assert_eq!(sessions_ended(&revoker, user("null")).await, 0);
        assert_eq!(live(&revoker).await, [1, 3, 4, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_session_is_not_counted() {
        let revoker = revoker(&[json!("42")]).await;
        tokio::time::advance(TTL).await;
        assert_eq!(sessions_ended(&revoker, RevokeTarget::User("42".to_owned())).await, 0);
    }

    #[test]
    fn debug_shows_neither_id_nor_user() {
        let (id, user) = (SessionId::new("hunter2"), "hunter2".to_owned());
        let shown = format!("{:?} {:?}", RevokeTarget::Session(id), RevokeTarget::User(user));
        assert_eq!(shown, "session user");
    }
}
