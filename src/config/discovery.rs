//! Service discovery: where an upstream's instances are found at run time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Discovered instances, in addition to those in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    pub source: DiscoverySource,
    pub empty: OnEmpty,
    /// Slots of a discovered instance, unless its file sets them. `None`: unlimited.
    pub max_requests: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverySource {
    Dns(DnsDiscovery),
    /// A TOML file with `[[instance]]` tables in the format of [`parse_instances`](super::parse_instances).
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDiscovery {
    pub question: DnsQuestion,
    /// The DNS servers to query. Empty: the system's servers, with its search domains.
    pub resolvers: Vec<SocketAddr>,
    pub family: AddressFamily,
    /// Minimum time between two lookups, regardless of the records' TTLs.
    pub min_ttl: Duration,
    /// Maximum time between two lookups; not less than `min_ttl`.
    pub max_ttl: Duration,
    /// Timeout of one lookup with all its queries.
    pub timeout: Duration,
}

/// What is queried. Names are in lower case; a name with a trailing dot is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsQuestion {
    /// A and AAAA records; all instances have the same port.
    Addresses { name: String, port: u16 },
    /// SRV records (RFC 2782).
    Services { name: String },
}

/// Which addresses of a name are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFamily {
    Any,
    Ipv4,
    Ipv6,
}

/// How a result without instances is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// As a failure: the last good set stays in use.
    Keep,
    /// As an empty set. A name that does not exist is still a failure.
    Apply,
}
