//! Which servers are primaries now, and which of them owns a key.
//!
//! One topology serves the whole process. It watches what the servers, the sentinels or the nodes of a
//! cluster say, and believes a majority of them; while there is none that is recent enough, nothing that a
//! Redis answers can be believed, because it might have been replaced without knowing.

mod cluster;
mod fixed;
mod layout;
mod observer;
mod sentinel;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::aio::AsyncPushSender;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{self, Host, RedisKind, RedisUrl};

use super::super::StoreError;
use super::access::{Access, StartError};
use super::link::{Connector, Link};
use super::switch::{Switch, Wire};

pub(in crate::session::store) use layout::Layout;
use layout::Slots;
use sentinel::Sentinels;

/// Confirmed for ever.
const ALWAYS: u64 = u64::MAX;
/// How long a server that a cluster mentioned in passing is kept in the layout.
const GUEST_STAY: Duration = Duration::from_secs(60);

/// The primaries of one store, followed until it is dropped.
pub struct Topology {
    state: Arc<State>,
    heirs: Heirs,
    _stop: DropGuard,
}

/// Who knows how many servers may take the place of a primary.
enum Heirs {
    /// The configuration: at least so many.
    AtLeast(usize),
    Sentinels(Sentinels),
}

impl Topology {
    /// Starts to follow the primaries of `url`, on the runtime this is called in, which should live as long
    /// as the process: watching stops with it. One host is not watched: it is the primary.
    ///
    /// # Errors
    /// Unusable `ca`, `certificate` or `private_key`. `rediss` needs a process-wide rustls crypto provider.
    pub fn start(url: &RedisUrl, config: &config::Store) -> Result<Arc<Self>, StartError> {
        let access = Access::to_redis(url, config)?;
        let state = Arc::new(State::new(Arc::clone(&access)));
        let stop = CancellationToken::new();
        let (watched, hosts) = (Arc::clone(&state), url.hosts.clone());
        let heirs = match &url.kind {
            RedisKind::Hosts => {
                let others = hosts.len().saturating_sub(1);
                match <[Host; 1]>::try_from(hosts) {
                    Ok(host) => state.publish(&host, Slots::One).confirm_for_ever(),
                    Err(hosts) => follow(&stop, fixed::watch(watched, hosts)),
                }
                Heirs::AtLeast(others)
            }
            RedisKind::Sentinel { master } => {
                let access = access.to_sentinels(&config.sentinel);
                let sentinels = Sentinels { access, hosts, master: master.clone() };
                follow(&stop, sentinel::watch(watched, sentinels.clone()));
                Heirs::Sentinels(sentinels)
            }
            RedisKind::Cluster => {
                follow(&stop, cluster::watch(watched, hosts));
                Heirs::AtLeast(1)
            }
        };
        Ok(Arc::new(Topology { state, heirs, _stop: stop.drop_guard() }))
    }

    /// What connects us with the servers, sentinels included.
    pub fn switch(&self) -> &Switch {
        &self.state.access.switch
    }

    /// The primaries as they are known now; none before they have been found.
    pub fn current(&self) -> Arc<Layout> {
        self.state.layout.load_full()
    }

    /// Completes when the current layout has another epoch than this one.
    pub async fn changed(&self, epoch: u64) {
        // The sender lives in the same place as we do.
        let _ = self.state.published.subscribe().wait_for(|current| *current != epoch).await;
    }

    /// The epoch of the current layout.
    pub fn epoch(&self) -> u64 {
        self.state.epoch.load(Ordering::Acquire)
    }

    /// Whether the current layout can be believed at `now`; while it cannot, no answer can.
    pub fn is_confirmed_at(&self, now: Instant) -> bool {
        self.state.is_confirmed(|| now)
    }

    /// How many servers, at least, may take the place of a primary; `None` when those who decide do not say.
    pub(super) async fn heirs(&self) -> Option<usize> {
        match &self.heirs {
            Heirs::AtLeast(count) => Some(*count),
            Heirs::Sentinels(sentinels) => sentinels.heirs().await,
        }
    }

    /// Whether the current layout can be believed now.
    pub fn is_confirmed(&self) -> bool {
        self.state.is_confirmed(Instant::now)
    }

    /// To be called on signs that the layout is out of date: what there is to ask is asked soon.
    pub(super) fn doubt(&self) {
        self.state.doubts.send_modify(|doubts| *doubts = doubts.wrapping_add(1));
    }

    /// Makes `host`, which a server named as the place of a key, part of the layout for a while.
    pub(super) fn meet(&self, host: Host) {
        let mut guests = self.state.guests();
        guests.retain(|(guest, _)| *guest != host);
        guests.push((host, Instant::now() + GUEST_STAY));
        drop(guests);
        self.doubt();
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

fn follow(stop: &CancellationToken, watcher: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        stop.run_until_cancelled(watcher).await;
    });
}

/// What the watcher writes and all others read.
struct State {
    access: Arc<Access>,
    layout: ArcSwap<Layout>,
    /// That of the layout, for a look without counting references.
    epoch: AtomicU64,
    published: watch::Sender<u64>,
    /// Milliseconds after `origin`, or [`ALWAYS`].
    confirmed_until: AtomicU64,
    origin: Instant,
    doubts: watch::Sender<u64>,
    guests: Mutex<Vec<(Host, Instant)>>,
}

impl State {
    fn new(access: Arc<Access>) -> Self {
        State {
            access,
            layout: ArcSwap::from_pointee(Layout::default()),
            epoch: AtomicU64::new(0),
            published: watch::Sender::new(0),
            confirmed_until: AtomicU64::new(0),
            origin: Instant::now(),
            doubts: watch::Sender::new(0),
            guests: Mutex::default(),
        }
    }

    /// Makes these hosts the primaries. A host that was one before stays the same [`Primary`].
    fn publish(&self, hosts: &[Host], slots: Slots) -> &Self {
        let old = self.layout.load();
        let primaries = hosts.iter().map(|host| old.find(host).unwrap_or_else(|| self.primary(host)));
        let epoch = old.epoch + 1;
        self.layout.store(Arc::new(Layout { epoch, primaries: primaries.collect(), slots }));
        self.epoch.store(epoch, Ordering::Release);
        self.published.send_replace(epoch);
        self
    }

    /// Lets the layout be believed until `until`.
    fn confirm(&self, until: Instant) {
        let until = until.saturating_duration_since(self.origin);
        self.confirmed_until.store(millis(until), Ordering::Release);
    }

    fn confirm_for_ever(&self) {
        self.confirmed_until.store(ALWAYS, Ordering::Release);
    }

    fn is_confirmed(&self, now: impl FnOnce() -> Instant) -> bool {
        let until = self.confirmed_until.load(Ordering::Acquire);
        until == ALWAYS || millis(now().saturating_duration_since(self.origin)) < until
    }

    fn primary(&self, host: &Host) -> Arc<Primary> {
        Arc::new(Primary(self.connector(host)))
    }

    fn connector(&self, host: &Host) -> Connector {
        Connector { access: Arc::clone(&self.access), host: host.clone() }
    }

    /// Hosts that were [met](Topology::meet) not too long ago.
    fn fresh_guests(&self, now: Instant) -> Vec<Host> {
        let mut guests = self.guests();
        guests.retain(|(_, until)| *until > now);
        guests.iter().map(|(host, _)| host.clone()).collect()
    }

    fn guests(&self) -> MutexGuard<'_, Vec<(Host, Instant)>> {
        // No code that holds the lock can panic half-way through a change.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(ALWAYS - 1)
}

/// A server that takes writes, as long as it is in the current layout. One that left the layout and came
/// back is another one: equal by [`Arc::ptr_eq`] means that it was a primary all the time.
pub struct Primary(Connector);

impl Primary {
    /// Where it is.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// Opens and authenticates a RESP3 connection of one's own within `connect_timeout`; `on_push` gets what
    /// the server says unasked, the loss of the connection included.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn open(&self, on_push: impl AsyncPushSender) -> Result<Wire, StoreError> {
        self.0.open(on_push).await
    }

    /// Whether it speaks RESP3 with us, as far as is known; without, it reports nothing unasked.
    pub(super) fn speaks_resp3(&self) -> bool {
        !self.0.access.is_without_resp3()
    }

    /// Opens and authenticates a connection for a pool.
    pub(super) async fn connect(&self) -> Result<Link, StoreError> {
        self.0.connect().await
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Primary").field(&self.0.host).finish()
    }
}
