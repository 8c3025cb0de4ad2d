//! The configuration for the rest of the program: validated, typed, defaults filled in.
//!
//! No `Option` here means "the default"; an `Option` means that the operator chose "none".

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::canary::Canary;
use super::change::{Pattern, Reload, Upgrade};
use super::mode::Modes;
use super::redis_url::{Credentials, RedisUrl};
use super::route_header::RouteHeader;
use super::upstream::Upstream;
use crate::headers::set_cookie::CookieAttributes;
use crate::secret::Secret;

/// A complete, valid configuration. Immutable; shared in an `Arc`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Worker threads, each with its own runtime and listeners.
    pub workers: NonZeroUsize,
    /// Addresses that accept clients; never empty.
    pub listeners: Vec<SocketAddr>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub shutdown: Shutdown,
    pub reload: Reload,
    pub upgrade: Upgrade,
    pub access_log: AccessLogOutput,
    pub forwarding: Forwarding,
    pub session: Session,
    pub affinity: Affinity,
    pub identity: Identity,
    /// Never empty. Routes refer to upstreams by index.
    pub upstreams: Vec<Upstream>,
    /// Never empty; in the order of the file.
    pub routes: Vec<Route>,
    /// The admin listener, if there is one.
    pub admin: Option<Admin>,
}

/// Limits on connections, on requests of clients, and on response heads of instances.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Open client connections, over all workers.
    pub connections: usize,
    /// Open connections to instances, over all workers.
    pub upstream_connections: usize,
    /// Header lines per request.
    pub header_count: usize,
    /// Bytes of request line and headers together; at least 8 KiB (hyper's minimum buffer).
    pub header_bytes: usize,
    /// Bytes of the request target.
    pub uri_bytes: usize,
    /// Bytes of a request body; `None` = unlimited.
    pub body_bytes: Option<u64>,
    /// Bytes buffered for bodies of HTTP/2 clients, over all connections.
    pub buffer_bytes: usize,
    /// Header lines per response of an instance; at most [`Limits::MAX_RESPONSE_HEADER_COUNT`].
    pub response_header_count: usize,
    /// Bytes of status line and headers together; 8 KiB to [`Limits::MAX_RESPONSE_HEADER_BYTES`].
    pub response_header_bytes: usize,
}

impl Limits {
    pub const MAX_RESPONSE_HEADER_COUNT: usize = 10_000;
    pub const MAX_RESPONSE_HEADER_BYTES: usize = 16 << 20;
}

/// Timeouts. All but `half_closed` are greater than zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timeouts {
    pub request_head: Duration,
    pub expect_continue: Duration,
    pub half_closed: Duration,
    pub keep_alive: Duration,
    pub client_idle: Duration,
    pub connect: Duration,
    pub first_byte: Duration,
    pub upstream_idle: Duration,
    pub upstream_keep_alive: Duration,
    pub tunnel_idle: Duration,
}

/// Graceful shutdown on SIGTERM.
#[derive(Debug, Clone, PartialEq)]
pub struct Shutdown {
    /// How long to keep accepting after readiness went off. May be zero.
    pub accept_grace: Duration,
    /// How long requests in flight may continue. May be zero: they are cut at once.
    pub deadline: Duration,
}

/// The output of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogOutput {
    Stdout,
    Stderr,
    File(PathBuf),
    Off,
}

/// Forwarding headers: which peers are trusted and which headers are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Forwarding {
    pub trusted_peers: Vec<IpNet>,
    /// Headers that are forwarded from every client, although by default only a trusted proxy may set them.
    pub pass: Vec<HeaderName>,
    pub x_forwarded_for: ForwardedFor,
    pub x_forwarded: bool,
    pub x_real_ip: bool,
    pub forwarded: bool,
    pub request_id: bool,
}

/// How `X-Forwarded-For` is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFor {
    /// Append the peer to the list that a trusted peer sent.
    Append,
    /// Send only the resolved client address.
    Replace,
    /// Send none.
    Off,
}

/// How a request without a live session is handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnAbsent {
    /// Forward without identity.
    Anonymous,
    /// Respond with 401.
    Unauthorized,
    /// Redirect a navigation to this location with 302; respond to other requests with 401.
    Redirect(HeaderValue),
}

/// How a CORS preflight without a live session is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsPreflights {
    /// Forward without identity.
    Pass,
    /// As configured by [`OnAbsent`].
    Deny,
}

impl SessionCache {
    /// The default of `max_staleness`.
    pub const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(1);
}

/// How a request with a session id is handled while the store is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// Respond with 503 and `Retry-After`.
    Deny,
    /// Use the last known state of a previously resolved session, for this long after it was last known to be
    /// current. Handle others like `Deny`.
    Stale(Duration),
    /// Forward without identity.
    Anonymous,
}

/// How a request is handled whose session exists in the store but cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnreadable {
    /// Like a request without a session; see [`OnAbsent`].
    Anonymous,
    /// Respond with 500.
    Deny,
}

/// For which missing sessions the cookie is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearCookie {
    Never,
    /// For sessions that are known to have ended.
    Ended,
    /// Also for ids that the store does not know.
    All,
}

/// When the renewal of a session's TTL is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// In the background, in batches.
    Async,
    /// Before the request is forwarded.
    Sync,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    pub mode: Modes,
    pub on_absent: OnAbsent,
    pub on_unreadable: OnUnreadable,
    /// For routes without their own setting.
    pub cors_preflights: CorsPreflights,
    /// `None`: sessions are not renewed.
    pub idle_timeout: Option<Duration>,
    pub absolute_timeout: Duration,
    /// Anchored at both ends.
    pub id_pattern: Pattern,
    /// Header that carries the id when there is no cookie.
    pub header: Option<HeaderName>,
    pub renewal: Renewal,
    /// JSON Pointer (RFC 6901) to the user in a session.
    pub user: String,
    pub cookie: SessionCookie,
    /// `None`: every request queries the store.
    pub cache: Option<SessionCache>,
    pub store: Store,
}

/// Limits of the session cache, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCache {
    /// At least 1.
    pub max_entries: usize,
    /// At least 1 MiB.
    pub max_bytes: usize,
    /// How long the absence of a session is cached.
    pub absent_ttl: Duration,
    /// Maximum time for which a change in the store may go unnoticed under a single fault; at least 100 ms.
    pub max_staleness: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SessionCookie {
    /// An RFC 6265 token.
    pub name: String,
    pub attributes: CookieAttributes,
    pub max_age: Duration,
    pub clear: ClearCookie,
    /// Whether the cookie is removed from upstream requests.
    pub hide: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    pub kind: StoreKind,
    /// Key text before the id.
    pub key_prefix: String,
    /// Key text after the id.
    pub key_suffix: String,
    pub format: StoreFormat,
    /// For routes without their own setting.
    pub on_outage: OnOutage,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// Connections that are always kept open, per worker and primary: 1..=max_idle.
    pub min_idle: usize,
    /// Idle connections that are kept, per worker and primary: up to max_connections.
    pub max_idle: usize,
    /// Maximum connections per worker and primary; at most 64.
    pub max_connections: usize,
    /// Age at which a connection is replaced. `None`: no limit.
    pub max_lifetime: Option<Duration>,
    /// Lookups in flight per connection; at least 1.
    pub in_flight: usize,
    pub wait_timeout: Duration,
    /// PEM file of the only certificate authority that is trusted for `rediss`.
    pub ca: Option<PathBuf>,
    /// Client certificate for `rediss`.
    pub certificate: Option<ClientCertificate>,
    /// Credentials for the sentinels. The credentials for Redis itself are in the URL.
    pub sentinel: Credentials,
}

/// PEM files of a certificate and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    pub certificate: PathBuf,
    pub private_key: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
pub enum StoreKind {
    /// Embedded, shared by all workers of this process.
    Memory,
    Redis(RedisUrl),
}

/// The encoding of a session in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFormat {
    /// Redis hash; every field is a string.
    Hash,
    /// Redis string with one JSON object.
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Affinity {
    /// An RFC 6265 token.
    pub cookie: String,
    /// Attributes of all cookies that vestibule sets: affinity, canary side and cohort.
    pub attributes: CookieAttributes,
    pub max_age: Duration,
    /// Key material, at least 32 bytes. `None`: random per process.
    pub secret: Option<Secret<Vec<u8>>>,
}

/// The headers that carry the user's identity to the upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The preset and the operator's own headers, merged; names are unique.
    pub headers: Vec<IdentityHeader>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeader {
    pub name: HeaderName,
    pub source: IdentitySource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// JSON Pointer (RFC 6901) into the session.
    Pointer(String),
    /// The same value on every request, with or without a session.
    Constant(HeaderValue),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub host: HostPattern,
    /// Begins with `/`; no trailing `/` except for the root.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// The route's own setting or the session's.
    pub on_absent: OnAbsent,
    /// The route's own setting or the session's.
    pub cors_preflights: CorsPreflights,
    /// The route's own setting or the store's.
    pub on_outage: OnOutage,
    /// Whether sessions are resolved on this route.
    pub session: bool,
    /// Whether all requests of the route go to one and the same instance as long as it is able to serve.
    pub single: bool,
    /// Headers that the route sets in its requests. Names are unique, and none of them is an identity header.
    pub headers: Vec<RouteHeader>,
    /// A canary that receives a share of the clients.
    pub canary: Option<Canary>,
}

impl Route {
    /// The route's name in logs, metrics and the API: its host (omitted for any host) and its path.
    pub fn label(&self) -> String {
        match &self.host {
            HostPattern::Any => self.path.clone(),
            HostPattern::Exact(host) => format!("{host}{}", self.path),
            HostPattern::Suffix(suffix) => format!("*.{suffix}{}", self.path),
        }
    }
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    pub address: SocketAddr,
    /// Bearer token of the API: 16 or more visible ASCII characters. `None`: the API is off.
    pub token: Option<Secret<String>>,
    /// Accepted `Host` names, in addition to addresses and names without a dot. Lower case, without a
    /// trailing dot.
    pub hosts: Vec<String>,
    /// Whether `/readyz` reports ready while the session store is unavailable.
    pub ready_without_store: bool,
}

impl Admin {
    /// The default listen address.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
}

/// The hosts of a route. Lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Any,
    Exact(String),
    /// `*.example.com` is stored as `example.com`. Matches one or more labels in front of it.
    Suffix(String),
}
