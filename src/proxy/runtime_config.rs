//! The configuration compiled for request processing: one immutable value that is swapped as a whole on
//! reload.

use std::sync::Arc;
use std::time::Duration;

use crate::affinity::Affinity;
use crate::balance::Balancer;
use crate::body::RequestBodyRules;
use crate::canary::{Canaries, Canary};
use crate::cohort::Cohorts;
use crate::config::{Config, Modes, Upstream};
use crate::identity::Identity;
use crate::secret::RandomError;
use crate::session::CookieWriter;
use crate::transport::PoolSettings;
use crate::upstream;

use super::header_rules::HeaderRules;
use super::labels::RouteLabels;
use super::route::Router;
use super::route_headers::RouteHeaders;

/// Default session idle timeout.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// Everything the pipeline reads from the configuration. Immutable while a request uses it.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    pub config: Arc<Config>,
    pub modes: Modes,
    /// Set while modes are compared.
    pub(super) cohorts: Option<Arc<Cohorts>>,
    pub(super) router: Arc<Router>,
    /// Indexed like the configuration's routes.
    pub(super) route_headers: Arc<[RouteHeaders]>,
    pub(super) identity: Arc<Identity>,
    /// Affinity cookies and hash keys.
    pub(super) affinity: Arc<Affinity>,
    /// Writer of session cookies.
    pub(super) cookies: Arc<CookieWriter>,
    /// Indexed like the configuration's upstreams.
    pub(super) balancers: Arc<[Arc<Balancer>]>,
    /// Connection pool settings, indexed like the upstreams.
    pub(super) connections: Arc<[PoolSettings]>,
    /// Names of the affinity cookies, indexed like the upstreams.
    pub(super) affinity_cookies: Arc<[String]>,
    pub(super) canaries: Arc<Canaries>,
    pub(super) labels: Arc<RouteLabels>,
    /// Headers and trailers that are not forwarded.
    pub(super) rules: Arc<HeaderRules>,
    pub(super) body_rules: RequestBodyRules,
}

impl RuntimeConfig {
    /// Compiles `config`. Fails when the system's random number generator fails.
    pub fn new(config: Arc<Config>) -> Result<Self, RandomError> {
        RuntimeConfig::build(config, None)
    }

    /// Compiles `config` and takes over state from this value. Unchanged upstreams are reused. Changed
    /// upstreams keep their instances by address, with their state and their position in the rotation.
    /// Canaries continue as [`Canaries::renewed`] describes.
    ///
    /// The new value must then be put to use and this one must not be used any more. Fails as
    /// [`RuntimeConfig::new`] does.
    pub fn rebuild_from(&self, config: Arc<Config>) -> Result<Self, RandomError> {
        RuntimeConfig::build(config, Some(self))
    }

    fn build(config: Arc<Config>, previous: Option<&RuntimeConfig>) -> Result<Self, RandomError> {
        let balancers = previous.map_or(&[][..], |previous| &previous.balancers);
        let affinity = Affinity::new(&config.affinity)?;
        let identity = Identity::new(&config.identity);
        let rules = HeaderRules::new(&config);
        let plan = RuntimeConfig {
            modes: config.session.mode,
            cohorts: cohorts(&config)?,
            router: Arc::new(Router::new(&config.routes)),
            route_headers: RouteHeaders::of(&config.routes).into(),
            labels: Arc::new(match previous {
                Some(previous) => previous.labels.succeed(&config.routes),
                None => RouteLabels::default().succeed(&config.routes),
            }),
            body_rules: RequestBodyRules {
                max_bytes: config.limits.body_bytes,
                idle: config.timeouts.client_idle,
                forbidden_trailers: rules.request_trailers.clone(),
            },
            rules: Arc::new(rules),
            cookies: Arc::new(CookieWriter::new(&config.session.cookie)),
            affinity_cookies: config
                .upstreams
                .iter()
                .map(|upstream| affinity.cookie_name(&upstream.name))
                .collect(),
            identity: Arc::new(identity),
            affinity: Arc::new(affinity),
            canaries: Arc::new(match previous {
                Some(previous) => previous.canaries.renewed(&config)?,
                None => Canaries::new(&config)?,
            }),
            connections: config.upstreams.iter().map(|upstream| pool_settings(&config, upstream)).collect(),
            // Must be last: it changes the state of live instances, so no fallible step may follow.
            balancers: config.upstreams.iter().map(|upstream| balancer(upstream, balancers)).collect(),
            config,
        };
        upstream::share_slots(plan.upstreams().map(Arc::as_ref));
        Ok(plan)
    }

    /// The canaries in the order of their routes. They are live objects, shared with clones of this value.
    pub fn canaries(&self) -> impl Iterator<Item = &Canary> {
        self.canaries.iter()
    }

    /// The upstreams in the order of the configuration.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<upstream::Upstream>> {
        self.balancers.iter().map(|balancer| balancer.upstream())
    }

    /// The route labels for metrics.
    pub fn labels(&self) -> &RouteLabels {
        &self.labels
    }

    /// Time without a request after which a client's session counts as ended, in sticky mode.
    pub fn session_idle(&self) -> Duration {
        self.config.session.idle_timeout.unwrap_or(SESSION_IDLE)
    }

    /// The balancers, in the order of the upstreams.
    pub fn balancers(&self) -> &[Arc<Balancer>] {
        &self.balancers
    }
}

fn cohorts(config: &Config) -> Result<Option<Arc<Cohorts>>, RandomError> {
    match config.session.mode {
        Modes::One(_) => Ok(None),
        Modes::Compare(shares) => Ok(Some(Arc::new(Cohorts::new(&config.affinity, shares)?))),
    }
}

fn balancer(config: &Upstream, previous: &[Arc<Balancer>]) -> Arc<Balancer> {
    match previous.iter().find(|balancer| balancer.upstream().name() == config.name) {
        Some(balancer) if balancer.upstream().config == *config => balancer.clone(),
        previous => Arc::new(Balancer::new(config, previous.map(Arc::as_ref))),
    }
}

fn pool_settings(config: &Config, upstream: &Upstream) -> PoolSettings {
    PoolSettings {
        connect: config.timeouts.connect,
        first_byte: config.timeouts.first_byte,
        idle: config.timeouts.upstream_idle,
        keep_alive: upstream.connections.idle_timeout,
        max_lifetime: upstream.connections.max_lifetime,
        max_requests: upstream.connections.max_requests,
        limit: None,
        warm: upstream.connections.warm,
        abandoned: upstream.abandoned,
        header_count: config.limits.response_header_count,
        header_bytes: config.limits.response_header_bytes,
    }
}
