//! Sessions that vestibule itself creates and ends.

use std::time::Duration;

use crate::config;
use crate::secret::RandomError;

use super::renewal::{CREATED, EXPIRES, now};
use super::{Fields, SessionId, Store, StoreError};

/// Creates and ends sessions in a store.
#[derive(Debug)]
pub struct Lifecycle {
    store: Store,
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
    pub fn new(config: &config::Session, store: Store) -> Self {
        Lifecycle { store, idle_timeout: config.idle_timeout, absolute_timeout: config.absolute_timeout }
    }

    /// Creates a session with `fields`, `created` and `expires` under a fresh id and removes
    /// `replaced`, the live session of the request if it had one; both or nothing. An id that a
    /// client brought is never given to a new session (fixation).
    ///
    /// Dropped before its end, it may or may not have happened.
    pub async fn create(
        &self,
        mut fields: Fields,
        replaced: Option<&SessionId>,
    ) -> Result<SessionId, LifecycleError> {
        let id = SessionId::generate()?;
        let created = now();
        fields.insert(CREATED.to_owned(), created.as_secs().into());
        fields.insert(EXPIRES.to_owned(), created.saturating_add(self.absolute_timeout).as_secs().into());
        let ttl = self.idle_timeout.unwrap_or(self.absolute_timeout).min(self.absolute_timeout);
        self.store.create(&id, fields, ttl, replaced).await?;
        Ok(id)
    }

    /// Ends a session; whether it was there.
    pub async fn end(&self, id: &SessionId) -> Result<bool, LifecycleError> {
        Ok(self.store.end(id).await?)
    }
}
