//! Keeps the cache consistent with Redis: receives invalidations, verifies that they arrive, and writes TTL
//! renewals.
//!
//! Two connections to each primary are used: one only receives, one only writes. A write over the receiving
//! connection could hide changes of other clients. The invalidation of a heartbeat ([`heartbeat`]) arrives
//! after those of all changes made before the heartbeat was written. It therefore extends the cache's lease,
//! counted from the time of that write. The lease ends when a connection is lost, when a heartbeat is not
//! reported for the length of a lease, or when the primaries change. Where heartbeats are rejected, or never
//! reported, entries expire by max staleness instead.
//!
//! Invalidations caused by our own renewals are not filtered out. Redis reports a key once for all its
//! changes within one turn of its event loop, so such an invalidation may stand for another client's change
//! as well. The cost is one lookup per renewal; a session is renewed at most once per tenth of the idle
//! timeout.

mod heartbeat;
mod links;
mod listener;
mod peers;
mod renewals;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use redis::aio::SendError;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::super::super::StoreError;
use super::super::super::cache::{SessionCache, TombstoneReason};
use super::codec::Codec;
use super::fault_injector::GuardedConnection;
use super::reply;
use super::topology::{Purpose, Topology, TopologySnapshot};
use crate::backoff::Backoff;
use crate::config;

use heartbeat::Heartbeat;
use links::{Beat, Link, Links};
use listener::Listener;
use peers::Peers;

/// Heartbeats per `max_staleness`. A lease is longer than two of these intervals, so one late heartbeat does
/// not end it.
const BEATS: u32 = 10;
/// Heartbeat interval while invalidations do not arrive, to detect when they do again.
const RETRY: Duration = Duration::from_secs(1);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
/// Number of failed attempts, about a second, before a warning is logged.
const PATIENCE: u32 = 8;

/// Keeps `cache` consistent with the primaries of `topology`, until dropped or until the cache is left.
pub(in super::super) async fn watch(
    topology: Arc<Topology>,
    config: &config::Session,
    cache: Arc<SessionCache>,
) {
    let lease = cache.lease();
    let codec = Arc::new(Codec::new(&config.store));
    let life = config.absolute_timeout;
    let watcher = Watcher { topology, codec, lease, cache, life, peers: Peers::new() };
    let (mut failures, mut reported) = (0, None);
    loop {
        match watcher.connect().await {
            Ok(links) => {
                (failures, reported) = (0, None);
                match watcher.serve(&links).await {
                    End::Lost(reason) => {
                        tracing::debug!(reason = reason.kind(), "lost touch with the session store");
                    }
                    End::Left => return,
                    End::Restored => tracing::info!("the session store reports changes again"),
                }
                watcher.cache.freshness.lapse();
            }
            // An unreachable server is logged by `Outages`. Early failures are not logged, because a failover
            // may be in progress. Repetitions of the same error are not logged.
            Err(error)
                if failures >= PATIENCE
                    && !watcher.topology.has_outage()
                    && reported.replace(error) != Some(error) =>
            {
                tracing::warn!(reason = error.kind(), "cannot follow changes in the session store");
            }
            Err(_) => (),
        }
        sleep(BACKOFF.delay(failures)).await;
        failures = failures.saturating_add(1);
    }
}

/// Admits the primaries of `topology` in a process without a cache, until dropped.
pub(in super::super) async fn attend(topology: Arc<Topology>) {
    let peers = Peers::new();
    let mut failures = 0;
    loop {
        let layout = topology.current();
        match admit(&peers, &layout).await {
            Ok(()) => {
                failures = 0;
                topology.changed(layout.epoch()).await;
            }
            Err(_) => {
                sleep(BACKOFF.delay(failures)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

async fn admit(peers: &Peers, layout: &Arc<TopologySnapshot>) -> Result<(), StoreError> {
    let links = hands(layout).await?;
    peers.wait_for_others(&links).await?;
    layout.primaries().iter().for_each(|primary| primary.admit());
    Ok(())
}

/// Opens connections for commands only, without tracking and heartbeats.
async fn hands(layout: &Arc<TopologySnapshot>) -> Result<Links, StoreError> {
    let silent = |_: PushInfo| Ok::<(), SendError>(());
    let hands = try_join_all(layout.primaries().iter().map(|primary| primary.open(Purpose::Writes, silent)));
    let link = |hand: GuardedConnection| Link { ear: hand.clone(), hand, heartbeat: None };
    let links = hands.await?.into_iter().map(link).collect();
    Ok(Links { layout: Arc::clone(layout), links, closed: Arc::default() })
}

/// Maintains the connections for invalidations and writes, and the lease of the cache.
struct Watcher {
    topology: Arc<Topology>,
    codec: Arc<Codec>,
    cache: Arc<SessionCache>,
    lease: Duration,
    /// Maximum lifetime of a session.
    life: Duration,
    peers: Peers,
}

/// Why the connections are not used any more.
enum End {
    Lost(StoreError),
    /// The cache was left: the process is shutting down.
    Left,
    /// Invalidations arrive again after a period in which they did not.
    Restored,
}

impl Watcher {
    /// Opens the connections and starts a new cache generation once invalidations arrive. The order matters.
    /// Tombstones are written before this process notes that it has done so, and a primary is admitted only
    /// after all processes have. The first heartbeat is written after tracking is on.
    async fn connect(&self) -> Result<Links, StoreError> {
        let (layout, closed) = (self.topology.current(), Arc::new(Notify::new()));
        if layout.primaries().is_empty() {
            return Err(StoreError::PrimaryDown);
        }
        let opened = (0..layout.primaries().len()).map(|index| self.open(&layout, index, &closed));
        let links = Links { links: try_join_all(opened).await?, layout, closed };
        let tracked = match links.layout.primaries().iter().all(|primary| primary.speaks_resp3()) {
            true => try_join_all(links.links.iter().map(|link| link.track(self.codec.prefix()))).await,
            false => Err(StoreError::Rejected),
        };
        let heard = try_join_all(links.links.iter().map(Link::subscribe)).await;
        self.bury_again(&links).await?;
        self.peers.note(&links).await;
        self.peers.wait_for_others(&links).await?;
        links.layout.primaries().iter().for_each(|primary| primary.admit());
        let beat = match tracked {
            Ok(_) => links.beat(self.lease).await?,
            Err(error @ (StoreError::Rejected | StoreError::Auth)) => Beat::Refused(error),
            Err(error) => return Err(error),
        };
        // Earlier changes to the index of users' sessions were not reported.
        self.topology.notes.forget_all();
        match beat {
            Beat::Heard(_) | Beat::Replaced => self.cache.freshness.begin(),
            beat => self.go_without(&links, beat).await,
        }
        if let Err(error) = heard {
            tracing::warn!(reason = error.kind(), "cannot listen to session:invalidated and vestibule:dead");
        }
        tracing::info!("following changes in the session store");
        Ok(links)
    }

    async fn open(
        &self,
        layout: &TopologySnapshot,
        index: usize,
        closed: &Arc<Notify>,
    ) -> Result<Link, StoreError> {
        let primary = layout.primaries().get(index).ok_or(StoreError::PrimaryDown)?;
        let (heartbeat, beats) = layout.tag_of(index).map(|tag| Heartbeat::new(&tag)).unzip();
        let (codec, cache) = (Arc::clone(&self.codec), Arc::clone(&self.cache));
        let listener = Listener { topology: Arc::clone(&self.topology), codec, cache, beats };
        let on_close = |closed: &Arc<Notify>| {
            let closed = Arc::clone(closed);
            move |push: &PushInfo| {
                if push.kind == PushKind::Disconnection {
                    closed.notify_one();
                }
            }
        };
        let (ear_closed, hand_closed) = (on_close(closed), on_close(closed));
        let ear = primary.open(Purpose::Changes, move |push: PushInfo| {
            ear_closed(&push);
            listener.hear(&push);
            Ok::<(), SendError>(())
        });
        let hand = primary.open(Purpose::Writes, move |push: PushInfo| {
            hand_closed(&push);
            Ok::<(), SendError>(())
        });
        let (ear, hand) = tokio::try_join!(ear, hand)?;
        let link = Link { ear, hand, heartbeat };
        link.ask_role(self.lease).await?;
        Ok(link)
    }

    /// Writes the remembered tombstones to the primaries, because a newly promoted server may lack them.
    async fn bury_again(&self, links: &Links) -> Result<(), StoreError> {
        let dead = self.cache.tombstones.all(self.cache.freshness.now());
        for batch in dead.chunks(256) {
            let burials = batch.iter().map(|(id, death, left)| (self.codec.bury(id, *death, *left), ()));
            for errand in links.errands(burials) {
                for told in errand.send().await.map_err(reply::kind_of)? {
                    match reply::checked(Ok(told)) {
                        // The key is being migrated to another server. The tombstone is written there when
                        // the layout changes after the migration.
                        Err(StoreError::Moving | StoreError::PrimaryDown) => (),
                        told => drop(told?),
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts a cache generation without invalidations, in which entries expire by max staleness.
    async fn go_without(&self, links: &Links, beat: Beat) {
        let reason = match beat {
            Beat::Refused(error) => error.kind(),
            _ => "no report of our own change arrived",
        };
        tracing::warn!(
            reason,
            max_staleness = ?self.cache.max_staleness,
            "the session store reports no changes; sessions are kept for max_staleness instead"
        );
        self.tell_unlinked(links).await;
        self.cache.freshness.begin_without_link(self.cache.max_staleness);
    }

    /// Announces to other vestibule processes that this one may take up to max staleness to notice changes.
    async fn tell_unlinked(&self, links: &Links) {
        let told = [(self.codec.tell_unlinked(3 * self.cache.max_staleness + RETRY), ())];
        for errand in links.errands(told.into_iter()) {
            if let Err(error) = reply::checked(errand.send().await.map(Value::Array)) {
                tracing::debug!(reason = error.kind(), "other vestibules cannot be told of max_staleness");
            }
        }
    }

    /// Extends the lease and writes renewals. Returns when the connections are not reliable any more.
    async fn serve(&self, links: &Links) -> End {
        let mut beats = interval(self.cache.max_staleness / BEATS);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut retry_at, mut users_at) = (Instant::now() + RETRY, Instant::now());
        let mut note_at = Peers::next_note();
        loop {
            let is_due = tokio::select! {
                _ = beats.tick() => true,
                () = self.cache.renewals.batch_is_full() => false,
                () = self.cache.left() => {
                    self.peers.leave(links).await;
                    return End::Left;
                }
                () = links.closed.notified() => return End::Lost(StoreError::Disconnected),
                () = self.topology.changed(links.layout.epoch()) => return End::Lost(StoreError::PrimaryDown),
            };
            let (confirmed, written, (), ()) = tokio::join!(
                async { if is_due { self.confirm(links, &mut retry_at).await } else { Ok(()) } },
                async { renewals::write(&self.cache, &self.codec, links).await.map_err(End::Lost) },
                self.note_users(links, &mut users_at),
                self.peers.keep_up(links, &mut note_at)
            );
            if let Err(end) = confirmed.and(written) {
                return end;
            }
        }
    }

    /// Verifies the connections. While invalidations arrive, extends the lease, counted from before the
    /// heartbeat was written. Otherwise only checks the roles, and writes a heartbeat every [`RETRY`].
    async fn confirm(&self, links: &Links, retry_at: &mut Instant) -> Result<(), End> {
        let asked = self.cache.freshness.now();
        if !self.cache.freshness.is_linked() && Instant::now() < *retry_at {
            return self.ask_roles(links).await.map_err(End::Lost);
        }
        *retry_at = Instant::now() + RETRY;
        let beat = links.beat(self.lease).await.map_err(End::Lost)?;
        self.check_layout(links).map_err(End::Lost)?;
        match (beat, self.cache.freshness.is_linked()) {
            (Beat::Heard(_) | Beat::Replaced, false) => return Err(End::Restored),
            (_, false) => self.tell_unlinked(links).await,
            (Beat::Missed, true) => return Err(End::Lost(StoreError::Timeout)),
            (Beat::Refused(_), true) => self.go_without(links, beat).await,
            (Beat::Replaced, true) => {
                tracing::warn!("the session store's data were flushed or replaced: forgetting all sessions");
                self.topology.notes.forget_all();
                self.cache.forget_all();
                self.cache.freshness.extend(asked.after(self.lease));
            }
            (Beat::Heard(delay), true) => {
                self.cache.delays.observe(delay);
                self.cache.freshness.extend(asked.after(self.lease));
            }
        }
        Ok(())
    }

    async fn ask_roles(&self, links: &Links) -> Result<(), StoreError> {
        try_join_all(links.links.iter().map(|link| link.ask_role(self.lease))).await?;
        self.check_layout(links)
    }

    /// Fails unless the connections belong to the current, confirmed layout.
    fn check_layout(&self, links: &Links) -> Result<(), StoreError> {
        let is_current = self.topology.is_confirmed() && self.topology.epoch() == links.layout.epoch();
        is_current.then_some(()).ok_or(StoreError::PrimaryDown)
    }

    /// Adds sessions to the index of a user's sessions whose entry could not be written when they were looked
    /// up. Revokes a session whose user was revoked in the meantime.
    async fn note_users(&self, links: &Links, next: &mut Instant) {
        if Instant::now() < *next {
            return;
        }
        let seen = self.cache.sightings.take_batch().into_iter();
        let notes =
            seen.map(|seen| (self.codec.note_user(&seen.user, &seen.id, self.life, Some(&seen.read)), seen));
        let mut revoked = Vec::new();
        for errand in links.errands(notes) {
            let replies = errand.send().await.unwrap_or_default().into_iter().map(Some);
            for (seen, reply) in errand.about.into_iter().zip(replies.chain(std::iter::repeat(None))) {
                match reply.map(|reply| reply::checked(Ok(reply))) {
                    Some(Ok(Value::Int(0))) => (),
                    Some(Ok(_)) => revoked.push(seen.id),
                    failed => {
                        tracing::debug!(?failed, "a session could not be noted as a user's");
                        self.cache.sightings.push(seen);
                        *next = Instant::now() + RETRY;
                    }
                }
            }
        }
        let burials = revoked.into_iter().map(|id| {
            self.cache.bury(&id, TombstoneReason::Revoked, self.life);
            (self.codec.bury(&id, TombstoneReason::Revoked, self.life), ())
        });
        for errand in links.errands(burials) {
            // A failure is harmless: the cache remembers the tombstone and writes it again with the next
            // connections.
            let _ = errand.send().await;
        }
    }
}
