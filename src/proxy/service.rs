//! What serves requests: the shared plan, and a worker's own connections, sessions and numbers.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::body::RequestBody;
use crate::body_memory::{BodyMemory, StreamMemory};
use crate::config::{self, Config, Limits, Mode, Timeouts};
use crate::heap;
use crate::secret::Fingerprints;
use crate::session::{
    Backend, Lifecycle, MemoryStore, Resolver, SessionCache, SharedState, Store, StoreError,
};
use crate::telemetry::lines::LineBuffer;
use crate::transport::{ConnectionLimiter, PoolSettings, Pools};

use super::access_log;
use super::canary;
use super::client::Client;
use super::cohort;
use super::context::RequestContext;
use super::drill::Drills;
use super::metrics::{RequestKey, Shard};
use super::pipeline;
use super::respond::ResponseBody;
use super::runtime_config::RuntimeConfig;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    pub plan: ArcSwap<RuntimeConfig>,
    /// The embedded store's content.
    pub memory: MemoryStore,
    /// What is known of the store's content, where sessions are kept.
    pub sessions: Option<Arc<SessionCache>>,
    pub session_state: Arc<SharedState>,
    /// What the workers' session stores have in common, once the proxy runs; `None` when it cannot be used.
    pub backend: OnceLock<Option<Backend>>,
    pub marks: Fingerprints,
    /// The connections to instances of all workers.
    pub lines: ConnectionLimiter,
    /// What is held of bodies for clients that several streams serve.
    pub stock: Arc<BodyMemory>,
    pub drills: Drills,
}

/// What belongs to one worker.
pub struct Worker {
    pub(super) pools: Pools,
    pub(super) counts: Arc<Shard>,
    lines: Option<LineBuffer>,
    /// Requests under way.
    pub(super) running: AtomicUsize,
    store: OnceLock<Result<Store, StoreError>>,
    /// Of the latest configuration that a request needed them for.
    sessions: ArcSwapOption<Sessions>,
    /// What still runs is ended by us.
    cutting: AtomicBool,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

/// One worker's way to the sessions, as one configuration wants it.
#[derive(Debug)]
pub(super) struct Sessions {
    config: Arc<Config>,
    pub(super) resolver: Resolver,
    pub(super) lifecycle: Lifecycle,
}

impl Shared {
    /// Opens what the workers' session stores have in common, watched over by the runtime this is called in.
    pub fn open_backend(&self) {
        let backend = Backend::start(&self.plan.load().config.session.store, &self.memory);
        let backend =
            backend.inspect_err(|error| tracing::error!(%error, "the session store cannot be used"));
        // Another call would have opened the same.
        let _ = self.backend.set(backend.ok());
    }

    /// The store as `config` describes it, for the runtime this is called in.
    pub fn open_store(&self, config: &config::Store) -> Result<Store, StoreError> {
        let backend = self.backend.get().ok_or(StoreError::Disconnected)?;
        Ok(Store::open(config, backend.as_ref().ok_or(StoreError::Tls)?))
    }
}

impl Worker {
    /// A worker that counts into `counts` and writes its access log to `lines`, if to anything.
    pub fn new(shared: &Shared, counts: Arc<Shard>, lines: Option<LineBuffer>) -> Self {
        Worker {
            pools: Pools::new(shared.lines.clone()),
            counts,
            lines,
            running: AtomicUsize::new(0),
            store: OnceLock::new(),
            sessions: ArcSwapOption::empty(),
            cutting: AtomicBool::new(false),
        }
    }
}

/// Serves the requests of one worker. Must be used within that worker's runtime.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    worker: Worker,
}

impl Service {
    pub fn new(shared: Arc<Shared>, worker: Worker) -> Self {
        Service { shared, worker }
    }

    /// Answers one request: exactly one answer, one access-log line, one count. Dropping the future is the
    /// client's leaving: the work for it ends at once. `hold` counts what is held of its body.
    pub fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
        hold: Option<Arc<StreamMemory>>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let plan = self.shared.plan.load_full();
        let (parts, body) = request.into_parts();
        let (body, upload) = RequestBody::new(body, &plan.body_rules, hold);
        // Both are moved from step to step, which as values would cost more than most steps do.
        let exchange = Box::new(RequestContext::begin(self, plan, &parts, upload, &client));
        let request = Box::new(Request::from_parts(parts, body));
        pipeline::run(request, client, exchange)
    }

    /// Notes a request that could not be read, and was answered with `status` without coming here.
    pub fn refused(&self, client: &Client, status: StatusCode, reason: &str) {
        let key = RequestKey::unreadable(status.as_u16());
        self.worker.counts.update(|counts| counts.request(key, Duration::ZERO));
        if let Some(lines) = &self.worker.lines {
            lines.line(|out| access_log::write_refused(out, client, status, reason));
        }
    }

    /// Opens the way to the session store and waits until it can be asked, at most `connect_timeout`, so that
    /// the first requests do not find a store that is merely not connected yet.
    pub async fn warm_up(&self) {
        // A failure is met again by the first request, which can say so to somebody.
        let limit = self.shared.plan.load().config.session.store.connect_timeout;
        if let Ok(store) = self.store() {
            let _ = timeout(limit, store.connected()).await;
        }
    }

    /// Whether requests need the session store.
    pub fn uses_store(&self) -> bool {
        self.shared.plan.load().modes.include(Mode::Shared)
    }

    /// To be called before requests under way are dropped, so that they are not logged as left by their clients.
    pub fn cut_off(&self) {
        self.worker.cutting.store(true, Relaxed);
    }

    /// Requests under way, streams and upgraded connections included.
    pub fn running(&self) -> usize {
        self.worker.running.load(Relaxed)
    }

    /// Routine work, to be called a few times a second: closes old connections, hands over log lines.
    pub fn tidy(&self) {
        self.worker.pools.sweep();
        self.keep_warm();
        heap::give_back();
        if let Some(lines) = &self.worker.lines {
            lines.flush();
        }
    }

    fn keep_warm(&self) {
        let plan = self.shared.plan.load();
        for (balancer, settings) in plan.balancers.iter().zip(&*plan.connections) {
            for instance in balancer.upstream().instances().iter().filter(|instance| instance.is_open()) {
                let settings = PoolSettings { limit: instance.connections(), ..*settings };
                self.worker.pools.keep_warm(instance.address, &settings);
            }
        }
    }

    /// What new requests are bound to.
    pub fn limits(&self) -> Limits {
        self.shared.plan.load().config.limits
    }

    /// The times that new requests and their connections keep.
    pub fn timeouts(&self) -> Timeouts {
        self.shared.plan.load().config.timeouts
    }

    /// What all connections together hold of bodies.
    pub fn stock(&self) -> &Arc<BodyMemory> {
        &self.shared.stock
    }

    /// How long running requests have to end when the process does.
    pub fn shutdown_deadline(&self) -> Duration {
        self.shared.plan.load().config.shutdown.deadline
    }

    pub(super) fn is_cutting(&self) -> bool {
        self.worker.cutting.load(Relaxed)
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The way to the sessions for requests that `plan` serves.
    pub(super) fn sessions(&self, plan: &RuntimeConfig) -> Result<Arc<Sessions>, StoreError> {
        if let Some(sessions) = &*self.worker.sessions.load()
            && Arc::ptr_eq(&sessions.config, &plan.config)
        {
            return Ok(sessions.clone());
        }
        let (config, cache) = (&plan.config.session, &self.shared.sessions);
        let state = &self.shared.session_state;
        let store = self.store()?;
        let sessions = Arc::new(Sessions {
            config: plan.config.clone(),
            resolver: Resolver::new(
                config,
                store.clone(),
                cache.clone(),
                state.clone(),
                plan.identity.clone(),
            ),
            lifecycle: Lifecycle::new(config, store.clone(), cache.clone(), state.clone()),
        });
        self.worker.sessions.store(Some(sessions.clone()));
        Ok(sessions)
    }

    /// The store, opened on first use.
    fn store(&self) -> Result<&Store, StoreError> {
        let open = || self.shared.open_store(&self.shared.plan.load().config.session.store);
        self.worker.store.get_or_init(open).as_ref().map_err(|error| *error)
    }

    /// Counts a finished request and writes its line.
    pub(super) fn record(&self, exchange: &RequestContext, took: Duration) {
        let route = exchange.route.and_then(|route| exchange.plan.labels.number(route));
        let key = RequestKey::new(route, exchange.mode, &exchange.method, exchange.final_status());
        self.worker.counts.update(|counts| {
            counts.request(key, took);
            canary::count(counts, exchange, took);
            cohort::count(counts, exchange);
            if let Some(affinity) = exchange.affinity {
                *counts.affinity.entry(affinity.as_str()).or_default() += 1;
            }
        });
        if let Some(lines) = &self.worker.lines {
            lines.line(|out| access_log::write(out, exchange, took, &self.shared.marks));
        }
    }
}
