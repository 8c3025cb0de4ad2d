//! The admin listener's access to the session store, separate from the workers' access.

use std::sync::OnceLock;

use tokio::time::timeout;

use crate::proxy::Shared;
use crate::session::{RevokeTarget, Revoked, Revoker, Store, StoreError};

/// The session store for the admin listener. Opened on first use, because most processes never need it.
#[derive(Debug, Default)]
pub struct Sessions(OnceLock<Result<Store, StoreError>>);

impl Sessions {
    /// Revokes the sessions that `target` names; see [`Revoker::revoke`].
    pub(super) async fn revoke(&self, shared: &Shared, target: &RevokeTarget) -> Result<Revoked, StoreError> {
        let plan = shared.plan.load_full();
        let store = self.connected(shared).await?.clone();
        Revoker::new(&plan.config.session, store, shared.sessions.clone()).revoke(target).await
    }

    /// Checks that the store responds.
    pub(super) async fn ping(&self, shared: &Shared) -> Result<(), StoreError> {
        self.connected(shared).await?.ping().await
    }

    /// The store, after waiting at most `connect_timeout` for its connection: a store that was opened just
    /// now is not an unavailable one.
    async fn connected(&self, shared: &Shared) -> Result<&Store, StoreError> {
        let config = &shared.plan.load_full().config.session.store;
        let store = self.0.get_or_init(|| shared.open_store(config)).as_ref().map_err(|error| *error)?;
        // After a timeout the store's own error is more specific.
        let _ = timeout(config.connect_timeout, store.connected()).await;
        Ok(store)
    }
}
