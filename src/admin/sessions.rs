//! The operator's own way to the sessions, beside those of the workers.

use std::sync::OnceLock;

use tokio::time::timeout;

use crate::config;
use crate::proxy::Shared;
use crate::session::{RevokeTarget, Revoked, Revoker, Store, StoreError};

/// The session store as the admin listener reaches it. Opened on first use, as most processes are never asked.
#[derive(Debug, Default)]
pub struct Sessions(OnceLock<Result<Opened, StoreError>>);

#[derive(Debug)]
struct Opened {
    store: Store,
    revoker: Revoker,
}

impl Sessions {
    /// Ends the sessions that `target` names; see [`Revoker::revoke`].
    pub(super) async fn revoke(&self, shared: &Shared, target: &RevokeTarget) -> Result<Revoked, StoreError> {
        self.connected(shared).await?.revoker.revoke(target).await
    }

    /// Whether the store answers.
    pub(super) async fn ping(&self, shared: &Shared) -> Result<(), StoreError> {
        self.connected(shared).await?.store.ping().await
    }

    /// Waits for the connection, at most `connect_timeout`: a store that was opened just now is not down.
    async fn connected(&self, shared: &Shared) -> Result<&Opened, StoreError> {
        let config = &shared.plan.load_full().config.session;
        let opened = self.0.get_or_init(|| open(config, shared)).as_ref().map_err(|error| *error)?;
        // Without a connection the store says itself why.
        let _ = timeout(config.store.connect_timeout, opened.store.connected()).await;
        Ok(opened)
    }
}

fn open(config: &config::Session, shared: &Shared) -> Result<Opened, StoreError> {
    let store = shared.open_store(&config.store)?;
    Ok(Opened { revoker: Revoker::new(config, store.clone(), shared.sessions.clone()), store })
}
