//! Writes the pending TTL renewals.

use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;

use super::super::super::super::StoreError;
use super::super::super::super::cache::{SessionCache, Timestamp};
use super::super::super::super::renewals::PendingRenewal;
use super::super::codec::Codec;
use super::super::reply;
use super::links::Links;

/// The result of a batch of renewals.
#[derive(Default)]
struct Written {
    /// Renewals to retry.
    again: Vec<PendingRenewal>,
    /// Set if the connection is not reliable any more.
    failure: Option<StoreError>,
}

/// Writes pending renewals until none are left or one must be retried later. Returns an error if the
/// connection is not reliable any more.
pub(super) async fn write(cache: &SessionCache, codec: &Codec, links: &Links) -> Result<(), StoreError> {
    cache.renewals.set_writing(true);
    let written = write_batches(cache, codec, links).await;
    cache.renewals.set_writing(false);
    written
}

async fn write_batches(cache: &SessionCache, codec: &Codec, links: &Links) -> Result<(), StoreError> {
    while cache.renewals.len() > 0 {
        let (batch, now) = (cache.renewals.take_batch(), cache.freshness.now());
        let renewals = batch.into_iter().filter_map(|renewal| {
            let ttl = cache.renewals.ttl(&renewal, now)?;
            Some((codec.renew(renewal.session.id(), ttl), (renewal, ttl)))
        });
        let errands = links.errands(renewals).into_iter();
        let sent = join_all(errands.map(async |errand| (errand.send().await, errand.about))).await;
        let mut written = Written::default();
        for (replies, renewals) in sent {
            match replies {
                Ok(replies) => written.note(cache, codec, renewals.into_iter().zip(replies), now),
                Err(error) => {
                    written.failure = Some(reply::kind_of(error));
                    written.again.extend(renewals.into_iter().map(|(renewal, _)| renewal));
                }
            }
        }
        let must_wait = !written.again.is_empty();
        cache.renewals.put_back(written.again);
        if let Some(failure) = written.failure {
            return Err(failure);
        }
        if must_wait {
            return Ok(());
        }
    }
    Ok(())
}

impl Written {
    fn note(
        &mut self,
        cache: &SessionCache,
        codec: &Codec,
        replies: impl Iterator<Item = ((PendingRenewal, Duration), Value)>,
        now: Timestamp,
    ) {
        for ((renewal, ttl), value) in replies {
            match reply::checked(Ok(value)) {
                Ok(Value::Int(1..)) => {
                    renewal.session.renewed(now.after(ttl));
                    cache.renewals.count_written(1);
                }
                // The session is missing, or its TTL is longer than the cache assumes: the cache entry is
                // outdated.
                Ok(_) => cache.invalidate(renewal.session.id().expose()),
                Err(StoreError::Rejected) if !codec.is_without_gt() => {
                    codec.set_without_gt();
                    self.again.push(renewal);
                }
                // The command is forbidden, so a retry cannot succeed.
                Err(error @ (StoreError::Auth | StoreError::Rejected)) => {
                    tracing::debug!(reason = error.kind(), "a session's TTL could not be renewed");
                }
                Err(error) => {
                    // A key that is being migrated is no fault of this connection.
                    if !error.is_refusal() && !matches!(error, StoreError::Moving | StoreError::PrimaryDown) {
                        self.failure = Some(error);
                    }
                    self.again.push(renewal);
                }
            }
        }
    }
}
