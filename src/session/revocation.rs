//! Ending sessions from outside: one by its id, or all of a user.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use crate::config;

use super::cache::Death;
use super::{SessionId, Store, StoreError, pointer};

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
    /// Every vestibule has let go of it, and a replica has it where there are replicas.
    Durable,
    /// Accepted, not yet durable: with the reason.
    Accepted(&'static str),
}

/// Revokes sessions in a store.
#[derive(Debug)]
pub struct Revoker {
    store: Store,
    /// JSON Pointer to the user in a session.
    user: String,
    /// Longest life of a session whose remaining time the store cannot tell.
    life: Duration,
}

impl Revoker {
    pub fn new(config: &config::Session, store: Store) -> Self {
        Revoker { store, user: config.user.clone(), life: config.absolute_timeout }
    }

    /// Ends the sessions that `target` names. That there are none is no error: what was asked for is so.
    ///
    /// Dropped before its end, it may or may not have happened.
    ///
    /// # Errors
    /// The store gave no answer; whether it happened is unknown. [`StoreError::Rejected`] for a user whose
    /// sessions are in Redis, where they cannot be found.
    pub async fn revoke(&self, target: &RevokeTarget) -> Result<Revoked, StoreError> {
        match (&self.store, target) {
            (Store::Memory(_), RevokeTarget::Session(id)) => {
                let sessions = self.bury(id).await?;
                Ok(Revoked { sessions, durability: Durability::Durable })
            }
            (Store::Memory(store), RevokeTarget::User(user)) => {
                let sessions = store.end_all(|contents| self.is_of(contents, user));
                Ok(Revoked { sessions, durability: Durability::Durable })
            }
            (Store::Redis(_), RevokeTarget::Session(id)) => {
                let sessions = self.bury(id).await?;
                Ok(Revoked { sessions, durability: Durability::Accepted("not confirmed by a replica") })
            }
            (Store::Redis(_), RevokeTarget::User(_)) => Err(StoreError::Rejected),
        }
    }

    async fn bury(&self, id: &SessionId) -> Result<u64, StoreError> {
        self.store.bury(id, Death::Revoked, self.life).await.map(u64::from)
    }

    /// Numbers count as they are written, as they do in identity headers.
    fn is_of(&self, contents: &[(Box<str>, Value)], user: &str) -> bool {
        match pointer::find(contents, &self.user) {
            Some(Value::String(text)) => text == user,
            Some(Value::Number(number)) => number.to_string() == user,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        Revoker { store, user: "/user/id".to_owned(), life: TTL }
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
