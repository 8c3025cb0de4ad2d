//! Which servers are primaries now, and which of them owns a key.
//!
//! One topology serves the whole process. It watches what the servers, the sentinels or the nodes of a
//! cluster say, and believes a majority of them; while there is none that is recent enough, nothing that a
//! Redis answers can be believed, because it might have been replaced without knowing.

mod cluster;
mod failover_candidates;
mod fixed;
mod followers;
mod poller;
mod primary;
mod sentinel;
mod snapshot;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::{self, Host, RedisKind, RedisUrl};

use super::access::{Access, StartError};
use super::fault_injector::{FaultInjector, GuardedConnection};
use super::link::Connector;
use super::notes::Notes;
use super::witness::Witness;

use failover_candidates::FailoverCandidates;
pub(super) use failover_candidates::{Replica, Successors, Unknown, replication};
use fixed::Looks;
pub(super) use primary::{ADMISSION, Purpose};
pub(in crate::session::store) use primary::{Primary, RunId};
use sentinel::Sentinels;
use snapshot::Slots;
pub(in crate::session::store) use snapshot::TopologySnapshot;

/// Confirmed for ever.
const ALWAYS: u64 = u64::MAX;
/// How long a server that a cluster mentioned in passing is kept in the layout.
const GUEST_STAY: Duration = Duration::from_secs(60);

/// How long a server that has followed a primary may take its place, even if it is listed nowhere: sentinels hear of
/// replicas every ten seconds.
const FOLLOWER_MEMORY: Duration = Duration::from_secs(60);

/// The primaries of one store, followed until it is dropped.
pub struct Topology {
    state: Arc<State>,
    heirs: FailoverCandidates,
    pub(super) witness: Witness,
    pub(super) notes: Notes,
    /// Whether new primaries are admitted by the watch.
    guarded: AtomicBool,
    _stop: DropGuard,
}

impl Topology {
    /// Starts to follow the primaries of `url`, on the runtime this is called in, which should live as long
    /// as the process: watching stops with it.
    ///
    /// # Errors
    /// Unusable `ca`, `certificate` or `private_key`. `rediss` needs a process-wide rustls crypto provider.
    pub fn start(url: &RedisUrl, config: &config::Store) -> Result<Arc<Self>, StartError> {
        let access = Access::to_redis(url, config)?;
        let state = State::new(Arc::clone(&access));
        let stop = CancellationToken::new();
        let (watched, hosts) = (Arc::clone(&state), url.hosts.clone());
        let heirs = match &url.kind {
            RedisKind::Hosts => {
                // Nobody else could know better than the hosts themselves.
                state.confirm_for_ever();
                if let [only] = hosts.as_slice() {
                    state.publish(std::slice::from_ref(only), Slots::One);
                }
                follow(&stop, fixed::follow(watched, hosts.clone()));
                FailoverCandidates::Hosts(hosts)
            }
            RedisKind::Sentinel { master } => {
                let access = access.to_sentinels(&config.sentinel);
                let sentinels = Sentinels { access, hosts, master: master.clone() };
                follow(&stop, sentinel::watch(watched, sentinels.clone()));
                FailoverCandidates::Sentinels(sentinels)
            }
            RedisKind::Cluster => {
                follow(&stop, cluster::watch(watched, hosts));
                FailoverCandidates::Cluster
            }
        };
        Ok(Arc::new(Topology {
            state,
            heirs,
            witness: Witness::default(),
            notes: Notes::default(),
            guarded: AtomicBool::new(false),
            _stop: stop.drop_guard(),
        }))
    }

    /// What connects us with the servers, sentinels included.
    pub fn switch(&self) -> &FaultInjector {
        &self.state.access.switch
    }

    /// Whether any server, of Redis, cannot be reached.
    pub(super) fn has_outage(&self) -> bool {
        self.state.access.outages.are_any()
    }

    /// The primaries as they are known now; none before they have been found.
    pub fn current(&self) -> Arc<TopologySnapshot> {
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

    /// The servers that may take the place of `primary`, to which `wire` leads. One that has followed it a short while
    /// ago is one of them, even if it is listed nowhere by now.
    pub(super) async fn successors(
        &self,
        primary: &Primary,
        wire: GuardedConnection,
    ) -> Result<Successors, Unknown> {
        let mut successors = self.heirs.of(primary.host(), wire).await?;
        let recent = self.state.recent_followers();
        let may_be_chosen = |host: &Host| host != primary.host() && !successors.never.contains(host);
        let recent: Vec<Host> = recent.into_iter().filter(may_be_chosen).collect();
        successors.certain.extend(recent);
        Ok(successors)
    }

    /// Whether the current layout can be believed now.
    pub fn is_confirmed(&self) -> bool {
        self.state.is_confirmed(Instant::now)
    }

    /// From now on new primaries are believed only once they are admitted.
    pub fn guard(&self) {
        self.guarded.store(true, Ordering::Relaxed);
    }

    /// Whether `primary` can be believed, as far as that is its own doing.
    pub(super) fn admits(&self, primary: &Primary) -> bool {
        !self.guarded.load(Ordering::Relaxed) || primary.is_admitted()
    }

    /// Whether a key is nowhere that `primary` did not have a moment ago: no other server is about to take its place, or
    /// has taken its address. Waits at most `limit` to find out; what cannot be found out speaks for it.
    pub(super) async fn is_alone(&self, primary: &Primary, limit: Duration) -> bool {
        if let FailoverCandidates::Hosts(_) = self.heirs {
            let _ = timeout(limit, self.state.looks.next()).await;
        }
        !self.state.contested.load(Ordering::Acquire) && self.current().holds(primary)
    }

    /// Whether the primaries have been that for some time, so that no vestibule believes others.
    pub(super) fn is_settled(&self) -> bool {
        self.current().primaries().iter().all(|primary| primary.is_settled())
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
    layout: ArcSwap<TopologySnapshot>,
    /// That of the layout, for a look without counting references.
    epoch: AtomicU64,
    published: watch::Sender<u64>,
    /// Milliseconds after `origin`, or [`ALWAYS`].
    confirmed_until: AtomicU64,
    origin: Instant,
    doubts: watch::Sender<u64>,
    /// Another server calls itself the primary as well.
    contested: AtomicBool,
    looks: Looks,
    guests: Mutex<Vec<(Host, Instant)>>,
    /// Servers that have followed a primary, and until when that is remembered.
    followers: Mutex<BTreeMap<Host, Instant>>,
    /// Held while the layout is replaced.
    change: Mutex<()>,
    me: Weak<State>,
}

impl State {
    fn new(access: Arc<Access>) -> Arc<Self> {
        Arc::new_cyclic(|me| State {
            access,
            me: me.clone(),
            change: Mutex::default(),
            layout: ArcSwap::from_pointee(TopologySnapshot::default()),
            epoch: AtomicU64::new(0),
            published: watch::Sender::new(0),
            confirmed_until: AtomicU64::new(0),
            origin: Instant::now(),
            doubts: watch::Sender::new(0),
            contested: AtomicBool::new(false),
            looks: Looks::new(),
            guests: Mutex::default(),
            followers: Mutex::default(),
        })
    }

    /// Makes these hosts the primaries. A host that was one before stays the same [`Primary`].
    fn publish(&self, hosts: &[Host], slots: Slots) {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.layout.load();
        let primaries = hosts.iter().map(|host| old.find(host).unwrap_or_else(|| self.primary(host)));
        self.set(old.epoch + 1, primaries.collect(), slots);
    }

    /// Puts a new primary at the address of this one, where another server answers.
    fn replace(&self, former: &Primary) {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.layout.load();
        let is_former = |primary: &Arc<Primary>| std::ptr::eq(Arc::as_ptr(primary), former);
        if !old.primaries.iter().any(is_former) {
            return;
        }
        tracing::info!(
            server = %former.host(),
            "another server, or another run of it, answers at an address of the session store: \
             all connections to the former one are replaced"
        );
        let primaries = old.primaries.iter().map(|primary| match is_former(primary) {
            true => self.primary(primary.host()),
            false => Arc::clone(primary),
        });
        self.set(old.epoch + 1, primaries.collect(), old.slots.clone());
    }

    fn set(&self, epoch: u64, primaries: Vec<Arc<Primary>>, slots: Slots) {
        self.layout.store(Arc::new(TopologySnapshot { epoch, primaries, slots }));
        self.epoch.store(epoch, Ordering::Release);
        self.published.send_replace(epoch);
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
        Primary::new(self.connector(host), self.me.clone())
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

    /// Takes note of the servers that the reply of `ROLE` of a primary names.
    fn note_followers(&self, hosts: &[Host]) {
        let until = Instant::now() + FOLLOWER_MEMORY;
        self.followers().extend(hosts.iter().map(|host| (host.clone(), until)));
    }

    /// Those that were noted not too long ago.
    fn recent_followers(&self) -> Vec<Host> {
        let mut followers = self.followers();
        followers.retain(|_, until| *until > Instant::now());
        followers.keys().cloned().collect()
    }

    fn followers(&self) -> MutexGuard<'_, BTreeMap<Host, Instant>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guests(&self) -> MutexGuard<'_, Vec<(Host, Instant)>> {
        // No code that holds the lock can panic half-way through a change.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(ALWAYS - 1)
}
