//! The configuration as the rest of the program sees it: validated, typed, defaults filled in.
//!
//! Nothing here is an `Option` that means "the default"; an `Option` means the operator chose "none".

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

/// A whole, valid configuration. Immutable; shared behind an `Arc`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Worker threads, each with its own runtime and listeners.
    pub workers: NonZeroUsize,
    /// Addresses to accept clients on; never empty.
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
    /// Never empty; routes refer to these by index.
    pub upstreams: Vec<Upstream>,
    /// Never empty; in the order of the file.
    pub routes: Vec<Route>,
    /// The admin listener, if there is one.
    pub admin: Option<Admin>,
}

/// What a client may send, and an instance in the head of a response.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Open client connections over all workers.
    pub connections: usize,
    /// Open connections to instances, likewise.
    pub upstream_connections: usize,
    /// Header lines per request.
    pub header_count: usize,
    /// Bytes of request line and headers together; at least 8 KiB (hyper's smallest buffer).
    pub header_bytes: usize,
    /// Bytes of the request target.
    pub uri_bytes: usize,
    /// Bytes of a request body; `None` = unlimited.
    pub body_bytes: Option<u64>,
    /// Bytes held of bodies of HTTP/2 clients, all connections together.
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

/// How long each step may take. All but `half_closed` are greater than zero.
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

/// How the process ends on SIGTERM.
#[derive(Debug, Clone, PartialEq)]
pub struct Shutdown {
    /// May be zero.
    pub accept_grace: Duration,
    /// May be zero: cut at once.
    pub deadline: Duration,
}

/// Where access-log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogOutput {
    Stdout,
    Stderr,
    File(PathBuf),
    Off,
}

/// Forwarding headers: whom we believe and what we send.
#[derive(Debug, Clone, PartialEq)]
pub struct Forwarding {
    pub trusted_peers: Vec<IpNet>,
    /// Headers that are passed on for everybody although they claim what only a proxy may say.
    pub pass: Vec<HeaderName>,
    pub x_forwarded_for: ForwardedFor,
    pub x_forwarded: bool,
    pub x_real_ip: bool,
    pub forwarded: bool,
    pub request_id: bool,
}

/// What becomes of `X-Forwarded-For`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFor {
    /// Append the peer to what a trusted peer sent.
    Append,
    /// Send the resolved client address only.
    Replace,
    /// Send none.
    Off,
}

/// What happens to a request without a live session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnAbsent {
    /// Forward without identity.
    Anonymous,
    /// 401.
    Unauthorized,
    /// 302 to this location for a navigation, 401 for anything else.
    Redirect(HeaderValue),
}

/// What happens to a CORS preflight without a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsPreflights {
    /// Forwarded without identity.
    Pass,
    /// As [`OnAbsent`] says.
    Deny,
}

impl SessionCache {
    /// `max_staleness` when nothing else is said.
    pub const DEFAULT_MAX_STALENESS: Duration = Duration::from_secs(1);
}

/// What happens to a request with a session id while the store cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// 503 with `Retry-After`.
    Deny,
    /// A session seen before goes on as it was last known, for this long after it was last known to be
    /// right; others as with `Deny`.
    Stale(Duration),
    /// Forward without identity.
    Anonymous,
}

/// What happens to a request whose session is in the store and cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnreadable {
    /// As without a session: [`OnAbsent`] says what.
    Anonymous,
    /// 500.
    Deny,
}

/// Of which sessions, when they are not there, the cookie is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearCookie {
    Never,
    /// Of those that were there once.
    Ended,
    /// Also of those that the store does not know.
    All,
}

/// When the renewal of a session's TTL is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// In the background, many together.
    Async,
    /// Before the request goes on.
    Sync,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    pub mode: Modes,
    pub on_absent: OnAbsent,
    pub on_unreadable: OnUnreadable,
    /// For routes that say nothing else.
    pub cors_preflights: CorsPreflights,
    /// `None`: never renew.
    pub idle_timeout: Option<Duration>,
    pub absolute_timeout: Duration,
    /// Anchored at both ends.
    pub id_pattern: Pattern,
    /// Header to read the id from when there is no cookie.
    pub header: Option<HeaderName>,
    pub renewal: Renewal,
    /// JSON Pointer (RFC 6901) to the user in a session.
    pub user: String,
    pub cookie: SessionCookie,
    /// `None`: the store is asked for every request.
    pub cache: Option<SessionCache>,
    pub store: Store,
}

/// Bounds of what is kept of resolved sessions, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCache {
    /// At least 1.
    pub max_entries: usize,
    /// At least 1 MiB.
    pub max_bytes: usize,
    /// How long it is remembered that there is no session of some id.
    pub absent_ttl: Duration,
    /// Longest time for which a change in the store may go unnoticed under a single fault; at least 100 ms.
    pub max_staleness: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SessionCookie {
    /// An RFC 6265 token.
    pub name: String,
    pub attributes: CookieAttributes,
    pub max_age: Duration,
    pub clear: ClearCookie,
    /// Remove the cookie from what the upstream sees.
    pub hide: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    pub kind: StoreKind,
    /// Text before the id in a key.
    pub key_prefix: String,
    /// Text after the id in a key.
    pub key_suffix: String,
    pub format: StoreFormat,
    /// For routes that say nothing else.
    pub on_outage: OnOutage,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    /// Per worker and primary, kept open: 1..=max_idle.
    pub min_idle: usize,
    /// Per worker and primary, kept when nobody uses them: up to max_connections.
    pub max_idle: usize,
    /// Per worker and primary; at most 64.
    pub max_connections: usize,
    /// Age at which a connection is replaced; `None`: never for its age.
    pub max_lifetime: Option<Duration>,
    /// Look-ups under way on one connection; at least 1.
    pub in_flight: usize,
    pub wait_timeout: Duration,
    /// PEM file of the only authority to trust for `rediss`.
    pub ca: Option<PathBuf>,
    /// Who we are for `rediss`.
    pub certificate: Option<ClientCertificate>,
    /// Who we are to the sentinels; the URL says who we are to Redis.
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

/// How a session is written in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFormat {
    /// Redis hash, every field a string.
    Hash,
    /// Redis string holding one JSON object.
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Affinity {
    /// An RFC 6265 token.
    pub cookie: String,
    /// Of all cookies that are ours: ties, sides of canaries and cohorts.
    pub attributes: CookieAttributes,
    pub max_age: Duration,
    /// Key material, at least 32 bytes; `None`: random per process.
    pub secret: Option<Secret<Vec<u8>>>,
}

/// The headers that tell the upstream who the user is.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// Preset and own headers merged; names are unique.
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
    /// Begins with `/`; no trailing `/` unless it is the root.
    pub path: String,
    /// Index into [`Config::upstreams`].
    pub upstream: usize,
    /// The route's own or the session's.
    pub on_absent: OnAbsent,
    /// The route's own or the session's.
    pub cors_preflights: CorsPreflights,
    /// The route's own or the store's.
    pub on_outage: OnOutage,
    /// Whether sessions are resolved on this route.
    pub session: bool,
    /// Whether all its requests go to one instance, the same for all, as long as that can serve.
    pub single: bool,
    /// What its requests are given on the way; names are unique and none of them is asserted as identity.
    pub headers: Vec<RouteHeader>,
    /// A second version that gets a share of the clients.
    pub canary: Option<Canary>,
}

impl Route {
    /// Its host, unless that is any, and its path: what logs, metrics and the API call it.
    pub fn label(&self) -> String {
        match &self.host {
            HostPattern::Any => self.path.clone(),
            HostPattern::Exact(host) => format!("{host}{}", self.path),
            HostPattern::Suffix(suffix) => format!("*.{suffix}{}", self.path),
        }
    }
}

/// The operator's listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    pub address: SocketAddr,
    /// What the API's callers must know: 16 or more visible ASCII characters; `None`: nobody may call it.
    pub token: Option<Secret<String>>,
    /// Names by which it is known besides addresses and names without a dot; lower case, without a dot at the end.
    pub hosts: Vec<String>,
    /// Whether `/readyz` says ready while the session store does not answer.
    pub ready_without_store: bool,
}

impl Admin {
    /// Where it listens when nothing else is said.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
}

/// Which hosts a route serves. Lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Any,
    Exact(String),
    /// `*.example.com` is held as `example.com`; matches one or more labels in front of it.
    Suffix(String),
}
