//! Keeps the cache in step with Redis: hears of every change, proves that it still hears, writes renewals.
//!
//! One connection does all of it, so that the order of things is the server's: a reply to a question asked at
//! some moment arrives after every change made before that moment. That reply extends the cache's lease; a
//! connection that is lost, or silent for as long as a lease, ends it. Renewals are written here because the
//! server does not report a connection's own writes to it (`NOLOOP`).

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, SendError};
use redis::{Pipeline, PushInfo, PushKind, Value, cmd};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::super::super::cache::{Death, Moment, SessionCache};
use super::super::super::renewals::PendingRenewal;
use super::super::super::{SessionId, StoreError};
use super::codec::{Codec, DEAD, INVALIDATED};
use super::link::{Connector, StartError};
use super::reply;
use crate::backoff::Backoff;
use crate::config;
use crate::secret::Secret;

/// A lease is this part of the longest staleness, so that a fault is noticed well before it.
pub(super) const LEASES: u32 = 4;
/// Questions in that time; a lease survives a lost one.
const QUESTIONS: u32 = 10;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// Keeps `cache` in step with the server at `url` until dropped.
///
/// # Errors
/// As [`super::RedisStore::start`].
pub(in super::super) async fn watch(
    url: &Secret<String>,
    config: &config::Store,
    cache: Arc<SessionCache>,
) -> Result<(), StartError> {
    let watcher = Watcher {
        connector: Connector::new(url, config)?,
        codec: Arc::new(Codec::new(config)),
        lease: cache.max_staleness / LEASES,
        cache,
    };
    let mut failures = 0;
    let mut reported = None;
    loop {
        match watcher.connect().await {
            Ok(link) => {
                (failures, reported) = (0, None);
                let lost = watcher.serve(&link).await;
                watcher.cache.freshness.lapse();
                tracing::warn!(reason = lost.kind(), "lost touch with the session store");
            }
            Err(error) if reported.replace(error) != Some(error) => {
                tracing::warn!(reason = error.kind(), "cannot follow changes in the session store");
            }
            Err(_) => (),
        }
        sleep(BACKOFF.delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}

struct Watcher {
    connector: Connector,
    codec: Arc<Codec>,
    cache: Arc<SessionCache>,
    lease: Duration,
}

/// A connection over which changes are heard of.
struct Link {
    connection: MultiplexedConnection,
    closed: Arc<Notify>,
}

impl Watcher {
    /// Opens the connection, and begins a generation once changes are heard of.
    async fn connect(&self) -> Result<Link, StoreError> {
        let closed = Arc::new(Notify::new());
        let listener = Listener { codec: Arc::clone(&self.codec), cache: Arc::clone(&self.cache) };
        let on_close = Arc::clone(&closed);
        let connection = self.connector.open(move |push| {
            if push.kind == PushKind::Disconnection {
                on_close.notify_one();
            }
            listener.hear(&push);
            Ok::<(), SendError>(())
        });
        let link = Link { connection: connection.await?, closed };
        link.ask_role(self.lease).await?;
        let tracked = link.track(self.codec.prefix()).await;
        let heard = link.subscribe().await;
        self.bury_again(&link).await?;
        match tracked {
            Ok(()) => self.cache.freshness.begin(),
            Err(error @ (StoreError::Rejected | StoreError::Auth)) => {
                tracing::warn!(
                    reason = error.kind(),
                    max_staleness = ?self.cache.max_staleness,
                    "the session store reports no changes; sessions are kept for max_staleness instead"
                );
                self.cache.freshness.begin_without_link(self.cache.max_staleness);
            }
            Err(error) => return Err(error),
        }
        if let Err(error) = heard {
            tracing::warn!(reason = error.kind(), "cannot listen to session:invalidated and vestibule:dead");
        }
        tracing::info!("following changes in the session store");
        Ok(link)
    }

    /// A server that has taken the place of another one may not know of the dead.
    async fn bury_again(&self, link: &Link) -> Result<(), StoreError> {
        let dead = self.cache.tombstones.all(self.cache.freshness.now());
        for batch in dead.chunks(256) {
            let mut pipeline = Pipeline::with_capacity(batch.len());
            for (id, death, left) in batch {
                pipeline.add_command(self.codec.bury(id, *death, *left));
            }
            link.pipeline(&pipeline).await?;
        }
        Ok(())
    }

    /// Extends the lease and writes renewals until the connection is not to be relied on; why it is not.
    async fn serve(&self, link: &Link) -> StoreError {
        let mut questions = interval(self.cache.max_staleness / QUESTIONS);
        questions.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asks = tokio::select! {
                _ = questions.tick() => true,
                () = self.cache.renewals.batch_is_full() => false,
                () = link.closed.notified() => return StoreError::Disconnected,
            };
            let (asked, written) = tokio::join!(
                async { if asks { self.confirm(link).await } else { Ok(()) } },
                self.write_renewals(link)
            );
            if let Err(error) = asked.and(written) {
                return error;
            }
        }
    }

    /// Asks the server whether it is the primary; its answer extends the lease, counted from the question.
    async fn confirm(&self, link: &Link) -> Result<(), StoreError> {
        let asked = self.cache.freshness.now();
        link.ask_role(self.lease).await?;
        self.cache.freshness.extend(asked.after(self.lease));
        Ok(())
    }

    async fn write_renewals(&self, link: &Link) -> Result<(), StoreError> {
        self.cache.renewals.set_writing(true);
        let written = self.write_batches(link).await;
        self.cache.renewals.set_writing(false);
        written
    }

    async fn write_batches(&self, link: &Link) -> Result<(), StoreError> {
        while self.cache.renewals.len() > 0 {
            let batch = self.cache.renewals.take_batch();
            let now = self.cache.freshness.now();
            let (mut pipeline, mut sent) = (Pipeline::new(), Vec::with_capacity(batch.len()));
            for renewal in batch {
                if let Some(ttl) = self.cache.renewals.ttl(&renewal, now) {
                    pipeline.add_command(self.codec.renew(renewal.session.id(), ttl));
                    sent.push((renewal, ttl));
                }
            }
            if sent.is_empty() {
                continue;
            }
            match link.connection.clone().send_packed_commands(&pipeline, 0, pipeline.len()).await {
                Ok(replies) => self.note_renewals(sent.into_iter().zip(replies), now)?,
                Err(error) => {
                    self.cache.renewals.put_back(sent.into_iter().map(|(renewal, _)| renewal).collect());
                    return Err(reply::kind_of(error));
                }
            }
        }
        Ok(())
    }

    fn note_renewals(
        &self,
        replies: impl Iterator<Item = ((PendingRenewal, Duration), Value)>,
        now: Moment,
    ) -> Result<(), StoreError> {
        let mut again = Vec::new();
        let mut failure = Ok(());
        for ((renewal, ttl), value) in replies {
            match reply::checked(Ok(value)) {
                Ok(Value::Int(1..)) => {
                    renewal.session.renewed(now.after(ttl));
                    self.cache.renewals.count_written(1);
                }
                // Gone, or living longer than we thought: what we know of it is wrong.
                Ok(_) => self.cache.invalidate(renewal.session.id().expose()),
                Err(StoreError::Rejected) if !self.codec.is_without_gt() => again.push(renewal),
                Err(error) => failure = Err(error),
            }
        }
        if !again.is_empty() {
            self.codec.set_without_gt();
            self.cache.renewals.put_back(again);
        }
        failure
    }
}

impl Link {
    /// Whether the server says that it is a primary. A server that does not let us ask is taken for one when it
    /// answers at all.
    async fn ask_role(&self, limit: Duration) -> Result<(), StoreError> {
        let role = match timeout(limit, self.command(&cmd("ROLE"))).await {
            Err(_) => return Err(StoreError::Timeout),
            Ok(Err(StoreError::Auth)) => return self.command(&cmd("PING")).await.map(drop),
            Ok(role) => role?,
        };
        reply::is_primary(&role).then_some(()).ok_or(StoreError::ReadOnly)
    }

    async fn track(&self, prefix: &str) -> Result<(), StoreError> {
        let mut track = cmd("CLIENT");
        track.arg("TRACKING").arg("ON").arg("BCAST").arg("NOLOOP");
        if !prefix.is_empty() {
            track.arg("PREFIX").arg(prefix);
        }
        self.command(&track).await.map(drop)
    }

    async fn subscribe(&self) -> Result<(), StoreError> {
        self.connection.clone().subscribe(&[INVALIDATED, DEAD]).await.map_err(reply::kind_of)
    }

    async fn command(&self, command: &redis::Cmd) -> Result<Value, StoreError> {
        reply::checked(self.connection.clone().send_packed_command(command).await)
    }

    async fn pipeline(&self, pipeline: &Pipeline) -> Result<(), StoreError> {
        let replies = self.connection.clone().send_packed_commands(pipeline, 0, pipeline.len()).await;
        reply::checked(replies.map(Value::Array)).map(drop)
    }
}

/// Obeys what the server says unasked.
struct Listener {
    codec: Arc<Codec>,
    cache: Arc<SessionCache>,
}

impl Listener {
    fn hear(&self, push: &PushInfo) {
        match (&push.kind, push.data.as_slice()) {
            (PushKind::Invalidate, [Value::Array(keys)]) => keys.iter().for_each(|key| self.forget(key)),
            // Everything was flushed.
            (PushKind::Invalidate, _) => self.cache.freshness.begin(),
            (PushKind::Message, [Value::BulkString(channel), Value::BulkString(text)]) => {
                self.hear_message(channel, text);
            }
            _ => (),
        }
    }

    fn forget(&self, key: &Value) {
        if let Value::BulkString(key) = key
            && let Some(id) = self.codec.id_in(key)
        {
            self.cache.invalidate(id);
        }
    }

    fn hear_message(&self, channel: &[u8], text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        if channel == INVALIDATED.as_bytes() {
            self.cache.invalidate(text);
        } else if let Some((id, death, ttl)) = parse_death(text) {
            self.cache.bury(&id, death, ttl);
        }
    }
}

/// `<milliseconds> <death> <id>`
fn parse_death(text: &str) -> Option<(SessionId, Death, Duration)> {
    let (millis, rest) = text.split_once(' ')?;
    let (death, id) = rest.split_once(' ')?;
    let death = Death::parse(death.as_bytes())?;
    Some((SessionId::new(id), death, Duration::from_millis(millis.parse().ok()?)))
}
