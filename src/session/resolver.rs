//! From a request's headers to a [`Resolution`].

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::config;

use super::renewal::{expires, now, renewed_ttl};
use super::{IdReader, Record, Resolution, Session, SessionId, Store, StoreError};

/// Resolves sessions for one worker.
#[derive(Debug)]
pub struct Resolver {
    ids: IdReader,
    store: Store,
    idle_timeout: Option<Duration>,
}

/// A resolution and what it cost.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub outcome: Resolution,
    /// How long the store took to answer or to fail; `None` if it was not asked.
    pub lookup: Option<Duration>,
}

impl Resolver {
    pub fn new(config: &config::Session, store: Store) -> Self {
        Resolver { ids: IdReader::new(config), store, idle_timeout: config.idle_timeout }
    }

    /// Says whose request this is. Ends within the store's deadlines (twice its `response_timeout`
    /// plus `wait_timeout` when a TTL is renewed); may be dropped at any time.
    ///
    /// A session whose TTL has come below nine tenths of the idle timeout is renewed on the way. A
    /// renewal that fails changes nothing about the outcome: the next request tries again.
    pub async fn resolve(&self, headers: &HeaderMap) -> Resolved {
        let id = match self.ids.read(headers) {
            Ok(id) => id,
            Err(reason) => return Resolved { outcome: Resolution::Absent(reason), lookup: None },
        };
        let asked = Instant::now();
        let answer = self.store.load(&id, self.idle_timeout.is_some()).await;
        let lookup = Some(asked.elapsed());
        let outcome = match answer {
            Ok(Some(record)) => self.judge(id, record).await.unwrap_or_else(Resolution::Unavailable),
            Ok(None) => Resolution::Ended(id),
            Err(error) => Resolution::Unavailable(error),
        };
        Resolved { outcome, lookup }
    }

    async fn judge(&self, id: SessionId, record: Record) -> Result<Resolution, StoreError> {
        let left = match expires(&record.fields)? {
            Some(end) => match end.checked_sub(now()) {
                Some(left) => Some(left),
                None => return Ok(Resolution::Ended(id)),
            },
            None => None,
        };
        if let Some(idle) = self.idle_timeout
            && let Some(ttl) = renewed_ttl(record.ttl, idle, left)
            // Rare, so its state is not part of every resolution's.
            && let Err(error) = Box::pin(self.store.renew(&id, ttl)).await
        {
            tracing::debug!(reason = error.kind(), "a session's TTL could not be renewed");
        }
        Ok(Resolution::Active(Arc::new(Session { id, fields: record.fields })))
    }
}
