//! Where instances of an upstream are looked for while the proxy runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Instances that are found, in addition to those that are written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    pub source: DiscoverySource,
    pub empty: OnEmpty,
    /// Slots of an instance that is found, unless its file says otherwise; `None`: as many as come.
    pub max_requests: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverySource {
    Dns(DnsDiscovery),
    /// A TOML file with tables `[[instance]]`, as [`parse_instances`](super::parse_instances) reads it.
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsDiscovery {
    pub question: DnsQuestion,
    /// Who is asked; empty: those of the system, with its search domains.
    pub resolvers: Vec<SocketAddr>,
    pub family: AddressFamily,
    /// Shortest time between two look-ups, whatever the records say.
    pub min_ttl: Duration,
    /// Longest time between two look-ups; not less than `min_ttl`.
    pub max_ttl: Duration,
    /// For one look-up, all its questions together.
    pub timeout: Duration,
}

/// What is asked for. Names are in lower case; one that ends with a dot is absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsQuestion {
    /// A and AAAA records; the port is the same for all.
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

/// What an answer without instances means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// A failure: the last good set is kept.
    Keep,
    /// That there are none. A name that does not exist is still a failure.
    Apply,
}
