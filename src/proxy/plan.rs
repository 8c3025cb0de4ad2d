//! The configuration compiled for serving: one immutable value, swapped whole.

use std::sync::Arc;

use crate::affinity::Affinity;
use crate::balance::Balancer;
use crate::body::RequestBodyRules;
use crate::config::{Config, Mode};
use crate::headers::name::NameSet;
use crate::headers::{forwarded, hop_by_hop};
use crate::identity::Identity;
use crate::secret::RandomError;
use crate::session::{CONTROL_HEADER, CookieWriter};
use crate::upstream::Upstream;

use super::route::Router;

/// Fields that a client may not add in a trailer, because they would change what the head said.
const NEVER_IN_TRAILERS: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "trailer",
    "authorization",
    "cookie",
    "set-cookie",
    "content-type",
];

/// Everything a request needs to know that does not change while it runs.
#[derive(Debug, Clone)]
pub struct Plan {
    pub config: Arc<Config>,
    pub mode: Mode,
    pub(super) router: Arc<Router>,
    pub(super) identity: Arc<Identity>,
    pub(super) affinity: Arc<Affinity>,
    pub(super) cookies: Arc<CookieWriter>,
    /// In the order of the configuration's upstreams.
    pub(super) balancers: Arc<[Balancer]>,
    /// Names of the affinity cookies, in the same order.
    pub(super) affinity_cookies: Arc<[String]>,
    pub(super) rules: Arc<HeaderRules>,
    pub(super) body_rules: RequestBodyRules,
}

/// Which headers end here.
#[derive(Debug)]
pub(super) struct HeaderRules {
    /// Of requests; a trusted peer may send the forwarding headers, properly spelled.
    pub(super) from_client: NameSet,
    /// Of answers.
    pub(super) from_upstream: NameSet,
}

impl Plan {
    /// Compiles `config`. Fails when the system gives no random numbers.
    pub fn new(config: Arc<Config>) -> Result<Self, RandomError> {
        let balancers: Vec<Balancer> = config
            .upstreams
            .iter()
            .map(|upstream| Balancer::new(Arc::new(Upstream::new(upstream))))
            .collect();
        let affinity = Affinity::new(&config.affinity)?;
        let identity = Identity::new(&config.identity);
        let asserted: Vec<&str> = config.identity.headers.iter().map(|header| header.name.as_str()).collect();
        let forbidden = asserted.iter().copied().chain(forwarded::FAMILY).chain(NEVER_IN_TRAILERS);
        Ok(Plan {
            mode: config.session.mode,
            router: Arc::new(Router::new(&config.routes)),
            rules: Arc::new(HeaderRules::new(&asserted)),
            body_rules: RequestBodyRules {
                max_bytes: config.limits.body_bytes,
                idle: config.timeouts.client_idle,
                forbidden_trailers: Arc::new(NameSet::new(forbidden)),
            },
            cookies: Arc::new(CookieWriter::new(&config.session.cookie)),
            affinity_cookies: config
                .upstreams
                .iter()
                .map(|upstream| affinity.cookie_name(&upstream.name))
                .collect(),
            identity: Arc::new(identity),
            affinity: Arc::new(affinity),
            balancers: balancers.into(),
            config,
        })
    }

    /// The same plan in another mode: instances, their state and the balancers' positions are shared.
    pub fn with_mode(&self, mode: Mode) -> Self {
        Plan { mode, ..self.clone() }
    }

    /// The upstreams in the order of the configuration.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.balancers.iter().map(Balancer::upstream)
    }
}

impl HeaderRules {
    fn new(asserted: &[&str]) -> Self {
        // We answer `Expect: 100-continue` ourselves, when the body is first wanted.
        let control = CONTROL_HEADER;
        let ours = ["expect", control.as_str()];
        let base = asserted.iter().copied().chain(ours).chain(hop_by_hop::NAMES);
        HeaderRules {
            from_client: NameSet::new(base.chain(forwarded::FAMILY)),
            from_upstream: NameSet::new(hop_by_hop::NAMES.into_iter().chain([control.as_str()])),
        }
    }
}
