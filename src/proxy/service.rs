//! The request service: state shared by all workers, and each worker's own connection pools, session access
//! and counters.

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

/// State shared by all workers.
#[derive(Debug)]
pub struct Shared {
    /// The current configuration. A request uses the value that it loaded at its start.
    pub plan: ArcSwap<RuntimeConfig>,
    /// Content of the embedded session store.
    pub memory: MemoryStore,
    /// The session cache, where sessions are used.
    pub sessions: Option<Arc<SessionCache>>,
    /// Session state that the workers share.
    pub session_state: Arc<SharedState>,
    /// State shared by the workers' session store clients, set when the proxy starts. The inner value is
    /// `None` when the store cannot be used.
    pub backend: OnceLock<Option<Backend>>,
    /// Fingerprints of session ids for the access log.
    pub marks: Fingerprints,
    /// Limits the connections to instances over all workers.
    pub lines: ConnectionLimiter,
    /// Memory held for bodies of HTTP/2 clients, over all connections.
    pub stock: Arc<BodyMemory>,
    /// Fault injection drills.
    pub drills: Drills,
}

/// State of one worker.
pub struct Worker {
    /// Connection pools to the instances.
    pub(super) pools: Pools,
    /// Counters of this worker.
    pub(super) counts: Arc<Shard>,
    /// Buffer of the access log; `None` without an access log.
    lines: Option<LineBuffer>,
    /// Requests in flight.
    pub(super) running: AtomicUsize,
    /// The session store client, opened on first use.
    store: OnceLock<Result<Store, StoreError>>,
    /// Built for the latest configuration for which a request needed sessions.
    sessions: ArcSwapOption<Sessions>,
    /// Set before the proxy itself aborts the requests in flight.
    cutting: AtomicBool,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

/// One worker's session resolver and lifecycle, for one configuration.
#[derive(Debug)]
pub(super) struct Sessions {
    config: Arc<Config>,
    pub(super) resolver: Resolver,
    pub(super) lifecycle: Lifecycle,
}

impl Shared {
    /// Opens the state shared by the workers' session store clients. Its background tasks run on the runtime
    /// in which this is called.
    pub fn open_backend(&self) {
        let backend = Backend::start(&self.plan.load().config.session.store, &self.memory);
        let backend =
            backend.inspect_err(|error| tracing::error!(%error, "the session store cannot be used"));
        // The value is set once; a second call would have opened an equal backend.
        let _ = self.backend.set(backend.ok());
    }

    /// Opens a client of the store that `config` describes, for the runtime in which this is called.
    pub fn open_store(&self, config: &config::Store) -> Result<Store, StoreError> {
        let backend = self.backend.get().ok_or(StoreError::Disconnected)?;
        Ok(Store::open(config, backend.as_ref().ok_or(StoreError::Tls)?))
    }
}

impl Worker {
    /// Creates a worker that counts into `counts` and writes its access log to `lines`. With `None` there is
    /// no access log.
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

    /// Handles one request: exactly one response, one access-log line and one count. Dropping the future
    /// means that the client disconnected, and stops all work for the request at once. `hold` accounts for
    /// the memory that its body holds.
    pub fn handle(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: Arc<Client>,
        hold: Option<Arc<StreamMemory>>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let plan = self.shared.plan.load_full();
        let (parts, body) = request.into_parts();
        let (body, upload) = RequestBody::new(body, &plan.body_rules, hold);
        // Both are moved from step to step. Moving them by value would cost more than most steps do.
        let exchange = Box::new(RequestContext::begin(self, plan, &parts, upload, &client));
        let request = Box::new(Request::from_parts(parts, body));
        pipeline::run(request, client, exchange)
    }

    /// Logs and counts a request that could not be parsed and was answered with `status` before it reached
    /// the service.
    pub fn refused(&self, client: &Client, status: StatusCode, reason: &str) {
        let key = RequestKey::unreadable(status.as_u16());
        self.worker.counts.update(|counts| counts.request(key, Duration::ZERO));
        if let Some(lines) = &self.worker.lines {
            lines.line(|out| access_log::write_refused(out, client, status, reason));
        }
    }

    /// Connects to the session store and waits until it is ready, at most `connect_timeout`. Without this the
    /// first requests could fail only because the store is not connected yet.
    pub async fn warm_up(&self) {
        // Errors are ignored here: the first request meets the same error and reports it.
        let limit = self.shared.plan.load().config.session.store.connect_timeout;
        if let Ok(store) = self.store() {
            let _ = timeout(limit, store.connected()).await;
        }
    }

    /// Whether requests need the session store.
    pub fn uses_store(&self) -> bool {
        self.shared.plan.load().modes.include(Mode::Shared)
    }

    /// Must be called before requests in flight are dropped. They are then logged as `shutdown` and not as
    /// client disconnects.
    pub fn cut_off(&self) {
        self.worker.cutting.store(true, Relaxed);
    }

    /// Number of requests in flight, including streams and upgraded connections.
    pub fn running(&self) -> usize {
        self.worker.running.load(Relaxed)
    }

    /// Periodic maintenance, called a few times per second: closes expired pooled connections, keeps warm
    /// connections open, returns heap memory and flushes the log.
    pub fn tidy(&self) {
        self.worker.pools.sweep();
        self.keep_warm();
        heap::give_back();
        if let Some(lines) = &self.worker.lines {
            lines.flush();
        }
    }

    /// Keeps the configured number of warm connections to each open instance.
    fn keep_warm(&self) {
        let plan = self.shared.plan.load();
        for (balancer, settings) in plan.balancers.iter().zip(&*plan.connections) {
            for instance in balancer.upstream().instances().iter().filter(|instance| instance.is_open()) {
                let settings = PoolSettings { limit: instance.connections(), ..*settings };
                self.worker.pools.keep_warm(instance.address, &settings);
            }
        }
    }

    /// The limits for new requests.
    pub fn limits(&self) -> Limits {
        self.shared.plan.load().config.limits
    }

    /// The timeouts for new requests and their connections.
    pub fn timeouts(&self) -> Timeouts {
        self.shared.plan.load().config.timeouts
    }

    /// The accounting of body memory over all connections.
    pub fn stock(&self) -> &Arc<BodyMemory> {
        &self.shared.stock
    }

    /// The deadline for requests in flight when the process shuts down.
    pub fn shutdown_deadline(&self) -> Duration {
        self.shared.plan.load().config.shutdown.deadline
    }

    /// Whether [`Service::cut_off`] was called.
    pub(super) fn is_cutting(&self) -> bool {
        self.worker.cutting.load(Relaxed)
    }

    pub(super) fn worker(&self) -> &Worker {
        &self.worker
    }

    /// The session resolver and lifecycle for requests that `plan` serves. Rebuilt when the configuration has
    /// changed.
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

    /// Counts a finished request and writes its access-log line.
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
