//! Keeps the cache in step with Redis: hears of every change, proves that it still hears, writes renewals.
//!
//! One connection per primary does all of it, so that the order of things is the server's: a reply to a
//! question asked at some moment arrives after every change made before that moment. The last of these replies
//! extends the cache's lease; a connection that is lost, or silent for as long as a lease, and other primaries
//! end it. Renewals are written here because the server does not report a connection's own writes to it
//! (`NOLOOP`).

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use redis::aio::SendError;
use redis::{Cmd, Pipeline, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::super::super::cache::{Death, Moment, SessionCache};
use super::super::super::renewals::PendingRenewal;
use super::super::super::{SessionId, StoreError};
use super::call::Call;
use super::codec::{Codec, DEAD, INVALIDATED};
use super::reply;
use super::revoke::unix_now;
use super::switch::Wire;
use super::topology::{Layout, Primary, Topology};
use crate::backoff::Backoff;
use crate::config;

/// Questions in that time; a lease survives a lost one.
const QUESTIONS: u32 = 10;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// Keeps `cache` in step with the primaries of `topology` until dropped.
pub(in super::super) async fn watch(
    topology: Arc<Topology>,
    config: &config::Session,
    cache: Arc<SessionCache>,
) {
    let lease = cache.lease();
    let watcher = Watcher {
        topology,
        codec: Arc::new(Codec::new(&config.store)),
        lease,
        cache,
        absolute_timeout: config.absolute_timeout,
    };
    let mut failures = 0;
    let mut reported = None;
    loop {
        match watcher.connect().await {
            Ok(links) => {
                (failures, reported) = (0, None);
                let lost = watcher.serve(&links).await;
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
    topology: Arc<Topology>,
    codec: Arc<Codec>,
    cache: Arc<SessionCache>,
    lease: Duration,
    /// Longest life of a session.
    absolute_timeout: Duration,
}

/// The connections over which changes are heard of: one to each primary of a layout, in its order.
struct Links {
    layout: Arc<Layout>,
    links: Vec<Link>,
    closed: Arc<Notify>,
}

struct Link(Wire);

impl Watcher {
    /// Opens the connections, and begins a generation once changes are heard of.
    async fn connect(&self) -> Result<Links, StoreError> {
        let (layout, closed) = (self.topology.current(), Arc::new(Notify::new()));
        if layout.primaries().is_empty() {
            return Err(StoreError::PrimaryDown);
        }
        let opened = layout.primaries().iter().map(|primary| self.open(primary, &closed));
        let links = Links { links: try_join_all(opened).await?, layout, closed };
        let tracked = match links.layout.primaries().iter().all(|primary| primary.speaks_resp3()) {
            true => try_join_all(links.links.iter().map(|link| link.track(self.codec.prefix()))).await,
            false => Err(StoreError::Rejected),
        };
        let heard = try_join_all(links.links.iter().map(Link::subscribe)).await;
        self.bury_again(&links).await?;
        match tracked {
            Ok(_) => self.cache.freshness.begin(),
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
        Ok(links)
    }

    async fn open(&self, primary: &Primary, closed: &Arc<Notify>) -> Result<Link, StoreError> {
        let listener = Listener { codec: Arc::clone(&self.codec), cache: Arc::clone(&self.cache) };
        let on_close = Arc::clone(closed);
        let connection = primary.open(move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                on_close.notify_one();
            }
            listener.hear(&push);
            Ok::<(), SendError>(())
        });
        let link = Link(connection.await?);
        link.ask_role(self.lease).await?;
        Ok(link)
    }

    /// A server that has taken the place of another one may not know of the dead.
    async fn bury_again(&self, links: &Links) -> Result<(), StoreError> {
        let dead = self.cache.tombstones.all(self.cache.freshness.now());
        for batch in dead.chunks(256) {
            let burials = batch.iter().map(|(id, death, left)| (self.codec.bury(id, *death, *left), ()));
            for errand in links.errands(burials) {
                reply::checked(errand.send().await.map(Value::Array))?;
            }
        }
        Ok(())
    }

    /// Extends the lease and writes renewals until the connections are not to be relied on; why they are not.
    async fn serve(&self, links: &Links) -> StoreError {
        let mut questions = interval(self.cache.max_staleness / QUESTIONS);
        questions.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asks = tokio::select! {
                _ = questions.tick() => true,
                () = self.cache.renewals.batch_is_full() => false,
                () = links.closed.notified() => return StoreError::Disconnected,
                () = self.topology.changed(links.layout.epoch()) => return StoreError::PrimaryDown,
            };
            let (asked, written, ()) = tokio::join!(
                async { if asks { self.confirm(links).await } else { Ok(()) } },
                self.write_renewals(links),
                self.note_users(links)
            );
            if let Err(error) = asked.and(written) {
                return error;
            }
        }
    }

    /// Asks the servers whether they are primaries; their answers extend the lease, counted from the question,
    /// unless they are contradicted.
    async fn confirm(&self, links: &Links) -> Result<(), StoreError> {
        let asked = self.cache.freshness.now();
        try_join_all(links.links.iter().map(|link| link.ask_role(self.lease))).await?;
        if !self.topology.is_confirmed() || self.topology.epoch() != links.layout.epoch() {
            return Err(StoreError::PrimaryDown);
        }
        self.cache.freshness.extend(asked.after(self.lease));
        Ok(())
    }

    /// Lets the sessions of a user be found. What fails is noted when the session is next looked up.
    async fn note_users(&self, links: &Links) {
        let (now, life) = (unix_now(), self.absolute_timeout);
        let notes = self.cache.sightings.take().into_iter();
        let notes = notes.map(|seen| (self.codec.note_user(&seen.user, &seen.id, life, now), ()));
        for errand in links.errands(notes) {
            if let Err(error) = reply::checked(errand.send().await.map(Value::Array)) {
                tracing::debug!(reason = error.kind(), "sessions could not be noted as a user's");
            }
        }
    }

    async fn write_renewals(&self, links: &Links) -> Result<(), StoreError> {
        self.cache.renewals.set_writing(true);
        let written = self.write_batches(links).await;
        self.cache.renewals.set_writing(false);
        written
    }

    async fn write_batches(&self, links: &Links) -> Result<(), StoreError> {
        while self.cache.renewals.len() > 0 {
            let batch = self.cache.renewals.take_batch();
            let now = self.cache.freshness.now();
            let renewals = batch.into_iter().filter_map(|renewal| {
                let ttl = self.cache.renewals.ttl(&renewal, now)?;
                Some((self.codec.renew(renewal.session.id(), ttl), (renewal, ttl)))
            });
            let errands = links.errands(renewals);
            let sent =
                join_all(errands.into_iter().map(async |errand| (errand.send().await, errand.about))).await;
            let mut failure = Ok(());
            for (replies, renewals) in sent {
                let noted = match replies {
                    Ok(replies) => self.note_renewals(renewals.into_iter().zip(replies), now),
                    Err(error) => {
                        let again = renewals.into_iter().map(|(renewal, _)| renewal);
                        self.cache.renewals.put_back(again.collect());
                        Err(reply::kind_of(error))
                    }
                };
                failure = failure.and(noted);
            }
            failure?;
        }
        Ok(())
    }

    fn note_renewals(
        &self,
        replies: impl Iterator<Item = ((PendingRenewal, Duration), Value)>,
        now: Moment,
    ) -> Result<(), StoreError> {
        let (mut again, mut is_old) = (Vec::new(), false);
        let mut failure = Ok(());
        for ((renewal, ttl), value) in replies {
            match reply::checked(Ok(value)) {
                Ok(Value::Int(1..)) => {
                    renewal.session.renewed(now.after(ttl));
                    self.cache.renewals.count_written(1);
                }
                // Gone, or living longer than we thought: what we know of it is wrong.
                Ok(_) => self.cache.invalidate(renewal.session.id().expose()),
                Err(StoreError::Rejected) if !self.codec.is_without_gt() => {
                    is_old = true;
                    again.push(renewal);
                }
                // Refused for good, which says nothing against the connection.
                Err(error @ (StoreError::Auth | StoreError::Rejected)) => {
                    tracing::debug!(reason = error.kind(), "a session's TTL could not be renewed");
                }
                Err(error) => {
                    failure = Err(error);
                    again.push(renewal);
                }
            }
        }
        if is_old {
            self.codec.set_without_gt();
        }
        self.cache.renewals.put_back(again);
        failure
    }
}

/// Commands for one server, and what each of them is about.
struct Errand<'a, T> {
    link: &'a Link,
    pipeline: Pipeline,
    about: Vec<T>,
}

impl<T> Errand<'_, T> {
    async fn send(&self) -> Result<Vec<Value>, RedisError> {
        self.link.0.clone().send_packed_commands(&self.pipeline).await
    }
}

impl Links {
    /// The commands, each with the server that owns its key. None is left out; those for a slot without an owner
    /// go to any server, which will refuse them.
    fn errands<T>(&self, commands: impl Iterator<Item = (Cmd, T)>) -> Vec<Errand<'_, T>> {
        let errand = |link| Errand { link, pipeline: Pipeline::new(), about: Vec::new() };
        let mut errands: Vec<_> = self.links.iter().map(errand).collect();
        for (command, about) in commands {
            let owner = self.layout.owner_index(|| Call::One(&command).key()).unwrap_or_default();
            if let Some(errand) = errands.get_mut(owner) {
                errand.pipeline.add_command(command);
                errand.about.push(about);
            }
        }
        errands.retain(|errand| !errand.about.is_empty());
        errands
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
        self.0.clone().subscribe(&[INVALIDATED, DEAD]).await.map_err(reply::kind_of)
    }

    async fn command(&self, command: &Cmd) -> Result<Value, StoreError> {
        reply::checked(self.0.clone().send_packed_command(command).await)
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
