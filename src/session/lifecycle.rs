//! Creates and ends sessions on behalf of upstreams.

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::secret::RandomError;

use super::cache::{SessionCache, TombstoneReason};
use super::renewal::{CREATED, EXPIRES};
use super::user_index_queue::user_in;
use super::{Contents, Fields, SessionId, SharedState, Store, StoreError};

/// Creates and ends sessions in a store.
#[derive(Debug)]
pub struct Lifecycle {
    store: Store,
    cache: Option<Arc<SessionCache>>,
    shared: Arc<SharedState>,
    /// JSON Pointer to the user in a session.
    user: String,
    idle_timeout: Option<Duration>,
    absolute_timeout: Duration,
}

/// Why a session could not be created or ended.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    #[error("the session store did not take the change")]
    Store(#[from] StoreError),
    #[error("no session id could be made")]
    Random(#[from] RandomError),
}

impl Lifecycle {
    /// `cache` is the cache of resolutions from the same store, if there is one.
    pub fn new(
        config: &config::Session,
        store: Store,
        cache: Option<Arc<SessionCache>>,
        shared: Arc<SharedState>,
    ) -> Self {
        Lifecycle {
            store,
            cache,
            shared,
            user: config.user.clone(),
            idle_timeout: config.idle_timeout,
            absolute_timeout: config.absolute_timeout,
        }
    }

    /// Creates a session with `fields` and the fields `created` and `expires`, under a new random id.
    /// `replaced` is the live session of the request, if there is one; it is ended first. An id sent by a
    /// client is never given to a new session, which prevents session fixation.
    ///
    /// The old session is ended before the new one is created. If the call fails or is cancelled, either step
    /// may have happened; at worst the client has lost the session that it was about to leave.
    pub async fn create(
        &self,
        mut fields: Fields,
        replaced: Option<&SessionId>,
    ) -> Result<SessionId, LifecycleError> {
        let id = SessionId::generate()?;
        let created = self.store.time().await?;
        fields.insert(CREATED.to_owned(), created.as_secs().into());
        fields.insert(EXPIRES.to_owned(), created.saturating_add(self.absolute_timeout).as_secs().into());
        let ttl = self.idle_timeout.unwrap_or(self.absolute_timeout).min(self.absolute_timeout);
        if let Some(replaced) = replaced {
            self.write_tombstone(replaced, TombstoneReason::Replaced).await?;
        }
        let contents = Contents::from(fields.clone());
        let user = user_in(&contents, &self.user).ok().flatten();
        self.store.create(&id, fields, ttl).await?;
        self.shared.seen.insert(&id);
        if let Some(user) = user
            && let Err(error) = self.store.note_user(&user, &id, self.absolute_timeout, None).await
        {
            // The session exists in any case. It is added to the user index when it is first looked up.
            tracing::debug!(reason = error.kind(), "a session could not be noted as a user's");
        }
        Ok(id)
    }

    /// Ends a session. Returns whether it was in the store.
    pub async fn end(&self, id: &SessionId) -> Result<bool, LifecycleError> {
        self.write_tombstone(id, TombstoneReason::Revoked).await
    }

    async fn write_tombstone(&self, id: &SessionId, death: TombstoneReason) -> Result<bool, LifecycleError> {
        let burial = self.store.write_tombstone(id, death, self.absolute_timeout).await?;
        if let Some(cache) = &self.cache {
            cache.bury(id, death, burial.life);
        }
        Ok(burial.was_there)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Content, MemoryStore, Ttl};
    use super::*;
    use crate::clock;

    const HOUR: Duration = Duration::from_secs(3600);
    const CONFIG: &str = include_str!("../../config/vestibule.toml");

    fn lifecycle(idle_timeout: Option<Duration>) -> Lifecycle {
        Lifecycle {
            store: Store::Memory(MemoryStore::new()),
            cache: None,
            shared: Arc::new(SharedState::new(&config::parse(CONFIG, "test").unwrap().session)),
            user: "/user_id".to_owned(),
            idle_timeout,
            absolute_timeout: HOUR,
        }
    }

    async fn created(lifecycle: &Lifecycle, replaced: Option<&SessionId>) -> SessionId {
        let fields = Fields::from_iter([("user_id".to_owned(), json!("42"))]);
        lifecycle.create(fields, replaced).await.unwrap()
    }

    async fn load(lifecycle: &Lifecycle, id: &SessionId) -> Option<(Contents, Ttl)> {
        let record = lifecycle.store.load(id, true).await.unwrap().found()?;
        Some((record.contents, record.ttl))
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_session_carries_its_fields_and_both_of_its_times() {
        let lifecycle = lifecycle(None);
        let before = clock::steady_unix_time().as_secs();
        let id = created(&lifecycle, None).await;
        let (contents, ttl) = load(&lifecycle, &id).await.unwrap();
        let seconds = |pointer| match contents.find(pointer) {
            Some(Content::Number(digits)) => digits.parse::<u64>().unwrap(),
            other => panic!("{other:?}"),
        };
        let created = seconds("/created");
        assert!((before..=clock::steady_unix_time().as_secs()).contains(&created));
        assert_eq!(seconds("/expires"), created + 3600);
        assert_eq!(contents.find("/user_id"), Some(Content::Text("42".into())));
        assert_eq!(ttl, Ttl::Left(HOUR));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_ttl_is_the_idle_timeout_within_the_absolute_one() {
        for (idle, ttl) in [(HOUR / 2, HOUR / 2), (2 * HOUR, HOUR)] {
            let lifecycle = lifecycle(Some(idle));
            let id = created(&lifecycle, None).await;
            assert_eq!(load(&lifecycle, &id).await.unwrap().1, Ttl::Left(ttl));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_session_takes_the_place_of_the_old_one_under_another_id() {
        let lifecycle = lifecycle(None);
        let old = created(&lifecycle, None).await;
        let new = created(&lifecycle, Some(&old)).await;
        assert_ne!(new, old);
        assert_eq!(load(&lifecycle, &old).await, None);
        assert!(lifecycle.end(&new).await.unwrap());
        assert!(!lifecycle.end(&new).await.unwrap());
    }
}
