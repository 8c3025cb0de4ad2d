//! Ending sessions from outside: one by its id, or all of a user.

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

/// Whose login is to end.
#[derive(Clone, PartialEq, Eq)]
pub enum RevokeTarget {
    Session(SessionId),
    /// All sessions of this user.
    User(String),
}

impl RevokeTarget {
    /// The word for logs.
    pub fn kind(&self) -> &'static str {
        match self {
            RevokeTarget::Session(_) => "session",
            RevokeTarget::User(_) => "user",
        }
    }

    /// The id or the user itself, to take a fingerprint of.
    pub fn expose(&self) -> &str {
        match self {
            RevokeTarget::Session(id) => id.expose(),
            RevokeTarget::User(user) => user,
        }
    }
}

/// Shows neither the id nor the user.
impl fmt::Debug for RevokeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// What came of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Sessions that were live and are no more.
    pub sessions: u64,
    pub durability: Durability,
}

/// Whether a revocation is there to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every vestibule has let go of it, and every server that may take the place of the primary has it.
    Durable,
    /// Accepted, not yet durable: with the reason.
    Accepted(&'static str),
}

/// Sessions that are read or ended in one go.
const BATCH: usize = 128;

/// Without the store's time a look-up that was under way is not told from a later login.
const NOT_EXACT: &str =
    "the session store's user may not ask TIME, so sessions that were being looked up may go on";

/// Revokes sessions in a store.
#[derive(Debug)]
pub struct Revoker {
    store: Store,
    cache: Option<Arc<SessionCache>>,
    /// JSON Pointer to the user in a session.
    user: String,
    /// Longest life of a session whose remaining time the store cannot tell.
    life: Duration,
}

impl Revoker {
    /// `cache` is the one that resolutions from the same store are kept in, if there is one. Vestibules that share
    /// a store must have the same `max_staleness`.
    pub fn new(config: &config::Session, store: Store, cache: Option<Arc<SessionCache>>) -> Self {
        Revoker { store, cache, user: config.user.clone(), life: config.absolute_timeout }
    }

    /// Ends the sessions that `target` names. That there are none is no error: what was asked for is so. Of a user
    /// those end that any vestibule has honoured, or is looking up.
    ///
    /// Returns when no vestibule honours them any more, which takes up to a quarter of `max_staleness`, or all of
    /// it where the store reports no changes to some vestibule. Dropped before its end, it may or may not have
    /// happened.
    ///
    /// # Errors
    /// The store gave no answer; whether it happened, and for how many sessions, is unknown.
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
                // Those whose look-up was under way are known now.
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

    /// Those of `ids` that do not belong to somebody else by now.
    async fn still_of(&self, user: &str, ids: Vec<SessionId>) -> Result<Vec<SessionId>, StoreError> {
        let mut theirs = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let are_theirs = try_join_all(batch.iter().map(|id| self.is_still_of(user, id))).await?;
            let theirs_of_it = batch.iter().zip(are_theirs).filter(|(_, is_theirs)| *is_theirs);
            theirs.extend(theirs_of_it.map(|(id, _)| id.clone()));
        }
        Ok(theirs)
    }

    /// One that cannot be read is still of the user that it was noted for.
    async fn is_still_of(&self, user: &str, id: &SessionId) -> Result<bool, StoreError> {
        let found = self.store.load(id, false).await?.found();
        let now_of = found.as_ref().map_or(Ok(None), |record| user_in(&record.contents, &self.user));
        Ok(now_of.ok().flatten().is_none_or(|of| of == user))
    }

    async fn revoke_all(&self, ids: &[SessionId]) -> Result<Revoked, StoreError> {
        let (sessions, mut durability) = (AtomicU64::new(0), Durability::Durable);
        let buried = |id: &SessionId, burial: TombstoneWrite| {
            // At once: a new primary is told of what is remembered by then.
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

    /// Waits as long as another vestibule may go on without having heard: the lease of its cache, which ends by
    /// itself, or the age that its entries may have where it hears of nothing. Without a cache of our own nothing is
    /// known of theirs but the default.
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

    /// A store with sessions of these users at `/user/id`, called `s0`, `s1` and so on.
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
