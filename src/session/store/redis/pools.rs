//! The connection pools of one worker, one per primary, and the routing of calls to them.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::future::try_join_all;
use redis::{Cmd, Pipeline, RedisError, Value, cmd};
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::Host;

use super::super::StoreError;
use super::call::{self, Call, Redirect};
use super::fault_injector::GuardedConnection;
use super::notes::Notes;
use super::pool::{Limits, Pool};
use super::reply;
use super::topology::{Primary, RunId, Successors, Topology, TopologySnapshot, Unknown};
use super::witness::Witnessed;

/// Polling interval while waiting for a layout to be confirmed. Confirmation sends no notification.
const CONFIRMATION_PAUSE: Duration = Duration::from_millis(20);

/// A connection pool for each primary of the current layout.
pub(super) struct Pools {
    topology: Arc<Topology>,
    limits: Limits,
    open: ArcSwap<Open>,
    /// Held while `open` is replaced.
    change: Mutex<()>,
}

/// The pools of one layout, in the order of its primaries.
struct Open {
    layout: Arc<TopologySnapshot>,
    pools: Vec<Arc<Running>>,
}

/// A pool whose supervisors end when this is dropped.
struct Running {
    primary: Arc<Primary>,
    pool: Arc<Pool>,
    _stop: DropGuard,
}

/// The server that a call is routed to, and the layout that it was chosen from.
struct Target {
    running: Arc<Running>,
    epoch: u64,
    is_cluster: bool,
}

impl Pools {
    /// Opens pools for the primaries of `topology` and follows its changes until the guard is dropped.
    pub(super) fn start(topology: Arc<Topology>, limits: Limits) -> (Arc<Self>, DropGuard) {
        let open = Open { layout: Arc::default(), pools: Vec::new() };
        let open = ArcSwap::from_pointee(open);
        let pools =
            Arc::new(Pools { topology: Arc::clone(&topology), limits, open, change: Mutex::default() });
        pools.renew();
        let (stop, followed) = (CancellationToken::new(), Arc::downgrade(&pools));
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped.run_until_cancelled(follow(topology, followed)).await;
        });
        (pools, stop.drop_guard())
    }

    /// Sends `call` to the primary that owns its key, and returns the response.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Value, StoreError> {
        self.ask(call, reply::checked).await.map(|(answer, _)| answer)
    }

    /// Reads keys of one slot. `ask` adds the commands. Returns their responses and the server, which has
    /// confirmed in the same pipeline that it is a primary.
    pub(super) async fn read(
        &self,
        ask: impl FnOnce(&mut Pipeline),
    ) -> Result<(Witnessed, Arc<Primary>), StoreError> {
        let mut questions = Pipeline::with_capacity(5);
        let asked = self.topology.witness.begin(&mut questions);
        ask(&mut questions);
        asked.end(&mut questions);
        self.ask(Call::Many(&questions), |answer| asked.take(answer)).await
    }

    /// Whether the primaries have been the same long enough that no vestibule process trusts others.
    pub(super) fn are_settled(&self) -> bool {
        self.topology.is_settled()
    }

    /// Routes `call`, follows one cluster redirection, and applies `read` to the response. Returns the server
    /// that replied as well. A response is discarded with `PrimaryDown` if its server is no longer a trusted
    /// primary when it arrives.
    async fn ask<T>(
        &self,
        call: Call<'_>,
        read: impl Fn(Result<Value, RedisError>) -> Result<T, StoreError>,
    ) -> Result<(T, Arc<Primary>), StoreError> {
        let target = self.target(call)?;
        let place = target.running.pool.place().await.inspect_err(|error| self.note(*error))?;
        let answer = call.send(place.connection()).await;
        if target.is_cluster
            && let Some(redirect) = call::redirect(&answer)
        {
            drop(place);
            return self.follow_redirect(call, redirect, answer, read).await;
        }
        let answer = place.checked(answer, read).inspect_err(|error| self.note(*error))?;
        self.believed(answer, &target)
    }

    /// The time of each primary since the Unix epoch, with its name; `None` if one of them does not report
    /// its time.
    pub(super) async fn times(&self) -> Result<Option<Vec<(RunId, Duration)>>, StoreError> {
        let open = Arc::clone(&self.open());
        let times = try_join_all(open.pools.iter().map(|running| running.time())).await?;
        self.check()?;
        Ok(times.into_iter().collect())
    }

    /// Whether a key that `primary` did not have a moment ago is absent from the store: no other server has
    /// become the primary. Waits at most `wait_timeout`.
    pub(super) async fn is_alone(&self, primary: &Primary) -> bool {
        self.topology.is_alone(primary, self.limits.wait_timeout).await
    }

    /// The servers that a failover may promote in place of `primary`. `wire` is a connection to it.
    pub(super) async fn successors(
        &self,
        primary: &Primary,
        wire: GuardedConnection,
    ) -> Result<Successors, Unknown> {
        self.topology.successors(primary, wire).await
    }

    /// The recent entries of the index of users' sessions, and the current epoch for new ones.
    pub(super) fn notes(&self) -> (&Notes, u64) {
        (&self.topology.notes, self.topology.epoch())
    }

    /// The primary that owns the key of `command`.
    pub(super) fn owner(&self, command: &Cmd) -> Result<Arc<Primary>, StoreError> {
        self.check()?;
        let layout = self.topology.current();
        layout.owner(Call::One(command).key()).cloned().ok_or(StoreError::PrimaryDown)
    }

    /// Fails unless `primary` is still a trusted primary, so that a response it gave earlier may be used.
    pub(super) fn check_owner(&self, primary: &Primary) -> Result<(), StoreError> {
        self.check()?;
        self.topology.current().holds(primary).then_some(()).ok_or(StoreError::PrimaryDown)
    }

    /// Health check: succeeds if every primary replies.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        self.check()?;
        let (open, ping) = (Arc::clone(&self.open()), cmd("PING"));
        if open.pools.is_empty() {
            return Err(StoreError::PrimaryDown);
        }
        let asked = open.pools.iter().map(async |running| {
            let place = running.pool.place().await?;
            place.checked(Call::One(&ping).send(place.connection()).await, reply::checked)
        });
        try_join_all(asked).await?;
        self.check()
    }

    /// Completes when the primaries are known, confirmed and admitted, and each has a connection.
    pub(super) async fn connected(&self) {
        loop {
            let open = Arc::clone(&self.open());
            let all = async {
                for running in &open.pools {
                    running.pool.connected().await;
                }
                let is_admitted = |running: &Arc<Running>| self.topology.admits(&running.primary);
                let is_ready = || !open.pools.is_empty() && open.pools.iter().all(is_admitted);
                while !is_ready() || !self.topology.is_confirmed() {
                    sleep(CONFIRMATION_PAUSE).await;
                }
            };
            tokio::select! {
                () = all => return,
                () = self.topology.changed(open.layout.epoch()) => (),
            }
        }
    }

    fn target(&self, call: Call<'_>) -> Result<Target, StoreError> {
        self.check()?;
        let open = self.open();
        let index = open.layout.owner_index(|| call.key());
        let running = index.and_then(|index| open.pools.get(index)).ok_or(StoreError::PrimaryDown)?;
        let is_admitted = self.topology.admits(&running.primary);
        is_admitted.then(|| Target::new(running, &open.layout)).ok_or(StoreError::PrimaryDown)
    }

    fn check(&self) -> Result<(), StoreError> {
        self.topology.is_confirmed().then_some(()).ok_or(StoreError::PrimaryDown)
    }

    /// Whether the response of `target` may be used: its server is still a primary and the layout is
    /// confirmed. Equal epochs are the fast path.
    fn is_still(&self, target: &Target) -> bool {
        let is_primary = || {
            target.epoch == self.topology.epoch() || self.topology.current().holds(&target.running.primary)
        };
        self.topology.is_confirmed() && is_primary()
    }

    fn believed<T>(&self, answer: T, target: &Target) -> Result<(T, Arc<Primary>), StoreError> {
        let by = || Arc::clone(&target.running.primary);
        self.is_still(target).then(|| (answer, by())).ok_or(StoreError::PrimaryDown)
    }

    /// Follows a `MOVED` or `ASK` redirection. A second redirection is not followed; it is returned as an
    /// error.
    async fn follow_redirect<T>(
        &self,
        call: Call<'_>,
        redirect: Redirect,
        answer: Result<Value, RedisError>,
        read: impl Fn(Result<Value, RedisError>) -> Result<T, StoreError>,
    ) -> Result<(T, Arc<Primary>), StoreError> {
        self.topology.meet(redirect.to.clone());
        let found = timeout(self.limits.wait_timeout, self.reach(&redirect.to)).await;
        let target = found.map_err(|_| StoreError::Moving)?;
        // `ASK` needs no admission: the importing server is queried for one key on behalf of the slot's
        // owner.
        if !redirect.is_ask && !self.topology.admits(&target.running.primary) {
            return Err(StoreError::PrimaryDown);
        }
        let place = target.running.pool.place().await?;
        let answer = match redirect.is_ask {
            true => call.ask_there(answer, place.connection()).await,
            false => call.send(place.connection()).await,
        };
        let answer = place.checked(answer, read)?;
        self.believed(answer, &target)
    }

    /// The pool of the server at `host`, once the layout contains it and it has a connection. May wait
    /// forever, so the caller sets a timeout.
    async fn reach(&self, host: &Host) -> Target {
        loop {
            let open = Arc::clone(&self.open());
            let index = open.layout.index_of(host);
            if let Some(running) = index.and_then(|index| open.pools.get(index)) {
                let target = Target::new(running, &open.layout);
                drop(open);
                target.running.pool.connected().await;
                return target;
            }
            self.topology.changed(open.layout.epoch()).await;
        }
    }

    /// Requests an early update of the topology if `error` may mean that it has changed.
    fn note(&self, error: StoreError) {
        if matches!(
            error,
            StoreError::Disconnected | StoreError::ReadOnly | StoreError::PrimaryDown | StoreError::Timeout
        ) {
            self.topology.doubt();
        }
    }

    /// The pools of the current layout.
    fn open(&self) -> Guard<Arc<Open>> {
        let open = self.open.load();
        if open.layout.epoch() == self.topology.epoch() {
            return open;
        }
        self.renew();
        self.open.load()
    }

    /// Adapts the pools to the current layout: opens those of new primaries and drops those of former ones.
    fn renew(&self) {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let (old, layout) = (self.open.load_full(), self.topology.current());
        if old.layout.epoch() == layout.epoch() {
            return;
        }
        let kept = |primary: &Arc<Primary>| {
            old.pools.iter().find(|running| Arc::ptr_eq(&running.primary, primary)).cloned()
        };
        let running = |primary| kept(primary).unwrap_or_else(|| Running::start(primary, self.limits));
        let pools = layout.primaries().iter().map(running).collect();
        self.open.store(Arc::new(Open { layout, pools }));
    }
}

/// Adapts the pools to every new layout at once, so that later calls find connections.
async fn follow(topology: Arc<Topology>, pools: Weak<Pools>) {
    let mut epoch = topology.epoch();
    while let Some(pools) = pools.upgrade() {
        epoch = pools.open().layout.epoch().max(epoch);
        drop(pools);
        topology.changed(epoch).await;
    }
}

impl Running {
    fn start(primary: &Arc<Primary>, limits: Limits) -> Arc<Self> {
        let (pool, stop) = Pool::start(Arc::clone(primary), limits);
        Arc::new(Running { primary: Arc::clone(primary), pool, _stop: stop.drop_guard() })
    }

    /// The time of the server since the Unix epoch, and its name; `None` if the server refuses `TIME`.
    async fn time(&self) -> Result<Option<(RunId, Duration)>, StoreError> {
        let place = self.pool.place().await?;
        let answer = place.checked(Call::One(&cmd("TIME")).send(place.connection()).await, reply::checked);
        match answer {
            Err(error) if error.is_refusal() => Ok(None),
            answer => Ok(reply::time(&answer?).map(|time| (self.primary.name(), time))),
        }
    }
}

impl Target {
    fn new(running: &Arc<Running>, layout: &TopologySnapshot) -> Self {
        Target { running: Arc::clone(running), epoch: layout.epoch(), is_cluster: layout.is_cluster() }
    }
}
