//! The operator's own way to the sessions, beside those of the workers.

use std::sync::OnceLock;

use tokio::time::timeout;

use crate::proxy::Shared;
use crate::session::{RevokeTarget, Revoked, Revoker, Store, StoreError};

/// The session store as the admin listener reaches it. Opened on first use, as most processes are never asked.
#[derive(Debug, Default)]
pub struct Sessions(OnceLock<Result<Store, StoreError>>);

impl Sessions {
    /// Ends the sessions that `target` names; see [`Revoker::revoke`].
    pub(super) async fn revoke(&self, shared: &Shared, target: &RevokeTarget) -> Result<Revoked, StoreError> {
        let plan = shared.plan.load_full();
        let store = self.connected(shared).await?.clone();
        Revoker::new(&plan.config.session, store, shared.sessions.clone()).revoke(target).await
    }

    /// Whether the store answers.
    pub(super) async fn ping(&self, shared: &Shared) -> Result<(), StoreError> {
        self.connected(shared).await?.ping().await
    }

    /// Waits for the connection, at most `connect_timeout`: a store that was opened just now is not down.
    async fn connected(&self, shared: &Shared) -> Result<&Store, StoreError> {
        let config = &shared.plan.load_full().config.session.store;
        let store = self.0.get_or_init(|| shared.open_store(config)).as_ref().map_err(|error| *error)?;
        // Without a connection the store says itself why.
        let _ = timeout(config.connect_timeout, store.connected()).await;
        Ok(store)
    }
}
