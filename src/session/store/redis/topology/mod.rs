//! Finds the current primaries and the owner of each key.
//!
//! A process has one topology per store. It polls the servers, the sentinels or the cluster nodes, and
//! accepts what a majority of them reports. Without a recent majority the layout is not confirmed, and no
//! response of a Redis server is trusted: it may have been replaced without its knowledge.

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

/// Value of `confirmed_until` for a layout that needs no confirmation.
const ALWAYS: u64 = u64::MAX;
/// How long a server that a redirection has named stays in the layout.
const GUEST_STAY: Duration = Duration::from_secs(60);

/// How long a former replica still counts as a failover candidate, even if it is not listed any more.
/// Sentinels update their list of replicas only every ten seconds.
const FOLLOWER_MEMORY: Duration = Duration::from_secs(60);

/// The primaries of one store. They are followed until this is dropped.
pub struct Topology {
    state: Arc<State>,
    heirs: FailoverCandidates,
    pub(super) witness: Witness,
    pub(super) notes: Notes,
    /// Whether new primaries must be admitted by `Store::watch` before they are
    /// trusted.
    guarded: AtomicBool,
    _stop: DropGuard,
}

impl Topology {
    /// Starts to follow the primaries of `url`, on the calling runtime. The runtime should live as long as
    /// the process, because polling stops with it.
    ///
    /// # Errors
    /// An unusable `ca`, `certificate` or `private_key`. `rediss` requires a process-wide rustls crypto
    /// provider.
    pub fn start(url: &RedisUrl, config: &config::Store) -> Result<Arc<Self>, StartError> {
        let access = Access::to_redis(url, config)?;
        let state = State::new(Arc::clone(&access));
        let stop = CancellationToken::new();
        let (watched, hosts) = (Arc::clone(&state), url.hosts.clone());
        let heirs = match &url.kind {
            RedisKind::Hosts => {
                // There is no other source to confirm the layout.
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

    /// The fault injection switch for the connections to the servers, including sentinels.
    pub fn switch(&self) -> &FaultInjector {
        &self.state.access.switch
    }

    /// Whether a Redis server is unreachable. Sentinels do not count.
    pub(super) fn has_outage(&self) -> bool {
        self.state.access.outages.are_any()
    }

    /// The current layout; it has no primaries until they are found.
    pub fn current(&self) -> Arc<TopologySnapshot> {
        self.state.layout.load_full()
    }

    /// Completes when the epoch of the current layout differs from `epoch`.
    pub async fn changed(&self, epoch: u64) {
        // Cannot fail: the sender belongs to `self`.
        let _ = self.state.published.subscribe().wait_for(|current| *current != epoch).await;
    }

    /// The epoch of the current layout.
    pub fn epoch(&self) -> u64 {
        self.state.epoch.load(Ordering::Acquire)
    }

    /// Whether the current layout is confirmed at `now`. While it is not, no response may be trusted.
    pub fn is_confirmed_at(&self, now: Instant) -> bool {
        self.state.is_confirmed(|| now)
    }

    /// The servers that a failover may promote in place of `primary`. `wire` is a connection to it. They
    /// include servers that have followed it within [`FOLLOWER_MEMORY`], even if these are not listed any
    /// more.
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

    /// Whether the current layout is confirmed now.
    pub fn is_confirmed(&self) -> bool {
        self.state.is_confirmed(Instant::now)
    }

    /// Requires from now on that new primaries are admitted before they are trusted.
    pub fn guard(&self) {
        self.guarded.store(true, Ordering::Relaxed);
    }

    /// Whether `primary` has been admitted, or no admission is required.
    pub(super) fn admits(&self, primary: &Primary) -> bool {
        !self.guarded.load(Ordering::Relaxed) || primary.is_admitted()
    }

    /// Whether a key that `primary` did not have a moment ago is absent from the store: no other server is
    /// about to replace it or has taken its address. Waits at most `limit` for a check of the address;
    /// without a result, the current state decides.
    pub(super) async fn is_alone(&self, primary: &Primary, limit: Duration) -> bool {
        if let FailoverCandidates::Hosts(_) = self.heirs {
            let _ = timeout(limit, self.state.looks.next()).await;
        }
        !self.state.contested.load(Ordering::Acquire) && self.current().holds(primary)
    }

    /// Whether the primaries have been the same long enough that no vestibule process trusts others.
    pub(super) fn is_settled(&self) -> bool {
        self.current().primaries().iter().all(|primary| primary.is_settled())
    }

    /// Requests an early poll. To be called on signs that the layout is outdated.
    pub(super) fn doubt(&self) {
        self.state.doubts.send_modify(|doubts| *doubts = doubts.wrapping_add(1));
    }

    /// Adds `host`, which a redirection has named, to the layout for [`GUEST_STAY`].
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

/// The state that the polling task writes and all others read.
struct State {
    access: Arc<Access>,
    layout: ArcSwap<TopologySnapshot>,
    /// A copy of the layout's epoch, readable without counting references.
    epoch: AtomicU64,
    /// The epoch again, to wait for a change of the layout.
    published: watch::Sender<u64>,
    /// Milliseconds after `origin`, or [`ALWAYS`].
    confirmed_until: AtomicU64,
    origin: Instant,
    /// Changed to request an early poll.
    doubts: watch::Sender<u64>,
    /// Whether another server claims to be the primary as well.
    contested: AtomicBool,
    looks: Looks,
    /// Hosts that redirections have named, and until when each stays in the layout.
    guests: Mutex<Vec<(Host, Instant)>>,
    /// Former and current replicas of the primaries, and until when each is remembered.
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

    /// Replaces the primaries. A host that was a primary before keeps its [`Primary`].
    fn publish(&self, hosts: &[Host], slots: Slots) {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.layout.load();
        let primaries = hosts.iter().map(|host| old.find(host).unwrap_or_else(|| self.primary(host)));
        self.set(old.epoch + 1, primaries.collect(), slots);
    }

    /// Replaces `former` with a new [`Primary`] at the same address, because another server replies there.
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

    /// Confirms the layout until `until`.
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

    /// Hosts that were [met](Topology::meet) within [`GUEST_STAY`].
    fn fresh_guests(&self, now: Instant) -> Vec<Host> {
        let mut guests = self.guests();
        guests.retain(|(_, until)| *until > now);
        guests.iter().map(|(host, _)| host.clone()).collect()
    }

    /// Remembers the replicas in a primary's reply to `ROLE`.
    fn note_followers(&self, hosts: &[Host]) {
        let until = Instant::now() + FOLLOWER_MEMORY;
        self.followers().extend(hosts.iter().map(|host| (host.clone(), until)));
    }

    /// The replicas that were seen within [`FOLLOWER_MEMORY`].
    fn recent_followers(&self) -> Vec<Host> {
        let mut followers = self.followers();
        followers.retain(|_, until| *until > Instant::now());
        followers.keys().cloned().collect()
    }

    fn followers(&self) -> MutexGuard<'_, BTreeMap<Host, Instant>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guests(&self) -> MutexGuard<'_, Vec<(Host, Instant)>> {
        // A poisoned lock is usable: no code that holds it can panic in the middle of a change.
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(ALWAYS - 1)
}
