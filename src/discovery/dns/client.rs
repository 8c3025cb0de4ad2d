//! DNS client that tries the resolvers one after the other.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::exchange;
use super::names::candidates;
use crate::config::{AddressFamily, DnsDiscovery};
use crate::discovery::failure::Failure;

/// Resolvers and search settings. It has no cache.
pub(super) struct Client {
    /// Never empty.
    servers: Vec<SocketAddr>,
    /// Timeout per resolver.
    patience: Duration,
    preferred: Arc<AtomicUsize>,
    search: Vec<Name>,
    ndots: usize,
    family: AddressFamily,
}

/// The addresses of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// The SRV records of a name, with the addresses in the additional section.
pub(super) struct Services {
    pub(super) records: Vec<SRV>,
    pub(super) along: Vec<Record>,
    pub(super) ttl: Duration,
}

impl Client {
    /// Uses the configured resolvers, or reads the system's configuration if there are none. Blocks.
    pub(super) fn new(config: &DnsDiscovery, preferred: Arc<AtomicUsize>) -> Result<Self, Failure> {
        let (servers, search, ndots) = match config.resolvers.as_slice() {
            [] => system()?,
            own => (own.to_vec(), Vec::new(), 1),
        };
        // Half of the timeout, so that a second resolver can be tried.
        let patience = config.timeout / 2;
        Ok(Client { servers, patience, preferred, search, ndots, family: config.family })
    }

    /// Queries the names that `name` can stand for and returns the first success. If a name does not exist or
    /// has no records, the next one is tried. Any other failure ends the search: the name may exist, and the
    /// next one could be a different service.
    pub(super) async fn search<T, F>(&self, name: &str, ask: impl Fn(Name) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let written =
            Name::from_ascii(name).map_err(|error| Failure::Name(name.to_owned(), error.to_string()))?;
        let mut nothing = Failure::Unknown(name.to_owned());
        for candidate in candidates(&written, &self.search, self.ndots) {
            match ask(candidate).await {
                Err(Failure::Empty(at)) => nothing = Failure::Empty(at),
                Err(Failure::Unknown(_)) => {}
                other => return other,
            }
        }
        Err(nothing)
    }

    fn is_wanted(&self, kind: RecordType) -> bool {
        match self.family {
            AddressFamily::Any => matches!(kind, RecordType::A | RecordType::AAAA),
            AddressFamily::Ipv4 => kind == RecordType::A,
            AddressFamily::Ipv6 => kind == RecordType::AAAA,
        }
    }

    /// All addresses of an absolute name. If the query for one address family fails, the addresses of the
    /// other alone are not returned, because the set would be incomplete.
    pub(super) async fn addresses(&self, name: Name) -> Result<Addresses, Failure> {
        match self.family {
            AddressFamily::Ipv4 => self.family(&name, RecordType::A).await,
            AddressFamily::Ipv6 => self.family(&name, RecordType::AAAA).await,
            AddressFamily::Any => {
                let (four, six) =
                    tokio::join!(self.family(&name, RecordType::A), self.family(&name, RecordType::AAAA));
                both(four, six)
            }
        }
    }

    async fn family(&self, name: &Name, kind: RecordType) -> Result<Addresses, Failure> {
        let (records, _) = self.ask(name, kind).await?;
        let addresses: Vec<IpAddr> = records.iter().filter_map(address).collect();
        match addresses.is_empty() {
            true => Err(Failure::Empty(name.to_ascii())),
            false => Ok(Addresses { addresses, ttl: shortest(&records) }),
        }
    }

    /// All SRV records of an absolute name.
    pub(super) async fn services(&self, name: Name) -> Result<Services, Failure> {
        let (answers, mut along) = self.ask(&name, RecordType::SRV).await?;
        along.retain(|record| self.is_wanted(record.record_type()));
        let service = |record: &Record| match &record.data {
            RData::SRV(service) => Some(service.clone()),
            _ => None,
        };
        let records: Vec<SRV> = answers.iter().filter_map(service).collect();
        match records.is_empty() {
            true => Err(Failure::Empty(name.to_ascii())),
            false => Ok(Services { records, along, ttl: shortest(&answers) }),
        }
    }

    /// Returns the answers and additional records of the first resolver that responds with NOERROR. NXDOMAIN
    /// is final: no further resolver is asked.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<(Vec<Record>, Vec<Record>), Failure> {
        let mut failure = Failure::System("there is no resolver".to_owned());
        let count = self.servers.len();
        let first = self.preferred.load(Relaxed) % count.max(1);
        for (turn, server) in self.servers.iter().cycle().skip(first).take(count).enumerate() {
            let answer = exchange::ask(*server, name, kind, self.patience).await;
            failure = match answer.map(|answer| (answer.metadata.response_code, answer)) {
                Ok((ResponseCode::NoError, answer)) => {
                    self.preferred.store(first + turn, Relaxed);
                    return Ok((answer.answers, answer.additionals));
                }
                Ok((ResponseCode::NXDomain, _)) => Failure::Unknown(name.to_ascii()),
                Ok((code, _)) => Failure::Answer(name.to_ascii(), format!("{server} says {code}")),
                Err(error) => Failure::Answer(name.to_ascii(), format!("{server}: {error}")),
            };
            if failure.is_negative() {
                break;
            }
            // Concurrent queries start with the next resolver at once, as does the next look-up if the
            // timeout ends this one.
            self.preferred.store(first + turn + 1, Relaxed);
        }
        Err(failure)
    }
}

/// The system's resolvers and search domains, and the number of dots (`ndots`) from which a name is first
/// taken as absolute.
fn system() -> Result<(Vec<SocketAddr>, Vec<Name>, usize), Failure> {
    let text = fs::read("/etc/resolv.conf").map_err(|error| Failure::System(error.to_string()))?;
    // Invalid lines are ignored, as by other resolvers.
    let (config, _) = resolv_conf::Config::parse_with_errors(&text);
    let servers: Vec<SocketAddr> =
        config.nameservers.iter().map(|server| SocketAddr::new(server.into(), 53)).collect();
    let search =
        config.get_last_search_or_domain().filter_map(|domain| Name::from_ascii(domain).ok()).collect();
    match servers.is_empty() {
        true => Err(Failure::System("/etc/resolv.conf names none".to_owned())),
        false => Ok((servers, search, config.ndots as usize)),
    }
}

/// Merges the results of both address families. One negative response beside a success is ignored.
fn both(four: Result<Addresses, Failure>, six: Result<Addresses, Failure>) -> Result<Addresses, Failure> {
    match (four, six) {
        (Ok(mut four), Ok(six)) => {
            four.addresses.extend(six.addresses);
            Ok(Addresses { ttl: four.ttl.min(six.ttl), ..four })
        }
        (Ok(found), Err(failure)) | (Err(failure), Ok(found)) if failure.is_negative() => Ok(found),
        // A failure proves nothing about the name, so it outranks a negative response: that one would empty the set.
        (Err(four), _) if !four.is_negative() => Err(four),
        (_, Err(six)) if !six.is_negative() => Err(six),
        // The name exists with records of another type, which says more than NXDOMAIN.
        (Err(four @ Failure::Empty(_)), _) => Err(four),
        (_, Err(failure)) | (Err(failure), _) => Err(failure),
    }
}

/// The address in a record; `None` if no server can have it (unspecified, multicast or broadcast).
pub(super) fn address(record: &Record) -> Option<IpAddr> {
    let address = match &record.data {
        RData::A(four) => IpAddr::V4(four.0),
        RData::AAAA(six) => IpAddr::V6(six.0),
        _ => return None,
    };
    let is_broadcast = matches!(address, IpAddr::V4(four) if four.is_broadcast());
    (!address.is_unspecified() && !address.is_multicast() && !is_broadcast).then_some(address)
}

/// The shortest TTL of all records of an answer, including CNAME records. 0 without records.
fn shortest(records: &[Record]) -> Duration {
    Duration::from_secs(records.iter().map(|record| record.ttl).min().unwrap_or(0).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_query_outranks_a_negative_response_of_the_other() {
        let found = || Ok(Addresses { addresses: Vec::new(), ttl: Duration::ZERO });
        let (empty, unknown) =
            (|| Err(Failure::Empty("n".to_owned())), || Err(Failure::Unknown("n".to_owned())));
        let failed = || Err(Failure::TimedOut(Duration::ZERO));
        for (four, six, kind) in [
            (failed(), empty(), "failed"),
            (empty(), failed(), "failed"),
            (failed(), unknown(), "failed"),
            (unknown(), failed(), "failed"),
            (failed(), found(), "failed"),
            (found(), failed(), "failed"),
            (empty(), unknown(), "empty"),
            (unknown(), empty(), "empty"),
            (unknown(), unknown(), "unknown"),
            (found(), empty(), "found"),
            (unknown(), found(), "found"),
        ] {
            let name = format!("{four:?} {six:?}");
            let got = match both(four, six) {
                Ok(_) => "found",
                Err(Failure::Empty(_)) => "empty",
                Err(Failure::Unknown(_)) => "unknown",
                Err(_) => "failed",
            };
            assert_eq!(got, kind, "{name}");
        }
    }
}
