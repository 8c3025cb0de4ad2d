//! SRV records (RFC 2782) as instances.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::SRV;

use super::Answer;
use super::client::{Addresses, Client, Services, address};
use crate::config::Instance;
use crate::discovery::failure::Failure;

/// Targets that are looked up concurrently.
const AT_ONCE: usize = 16;

/// Largest weight of an instance.
const GREATEST: u64 = 1000;

/// The instances of SRV records. Those of the lowest priority value are primaries, all others are backups.
/// Target addresses are taken from the additional section if present, else looked up. A target without
/// addresses is omitted.
pub(super) async fn instances(client: &Client, found: Services) -> Result<Answer, Failure> {
    let Services { records, along, ttl } = found;
    let resolved = stream::iter(shares(records)).map(async |Share { record, weight, backup }| {
        let addresses = match came_along(&record, &along) {
            Some(addresses) => Ok(addresses),
            None => client.addresses(record.target.clone()).await,
        };
        let instance = |ip| Instance { weight, backup, ..Instance::at(SocketAddr::new(ip, record.port)) };
        match addresses {
            Ok(Addresses { addresses, ttl }) => Ok((addresses.into_iter().map(instance).collect(), ttl)),
            Err(failure) if failure.is_negative() => Ok((Vec::new(), Duration::MAX)),
            Err(failure) => Err(failure),
        }
    });
    let targets: Vec<_> = resolved.buffered(AT_ONCE).try_collect().await?;
    let ttl = targets.iter().fold(ttl, |shortest, (_, ttl)| shortest.min(*ttl));
    Ok(Answer { instances: targets.into_iter().flat_map(|(instances, _)| instances).collect(), ttl })
}

/// A record with the settings of its instances.
#[derive(Debug, PartialEq, Eq)]
struct Share {
    record: SRV,
    weight: u32,
    backup: bool,
}

/// Removes records with the target `.`, which means that the service does not exist, and with port 0.
/// Computes weights and backups.
fn shares(mut records: Vec<SRV>) -> Vec<Share> {
    records.retain(|record| !record.target.is_root() && record.port != 0);
    let lowest = records.iter().map(|record| record.priority).min();
    let (first, backups): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| Some(record.priority) == lowest);
    let weighted = |records: Vec<SRV>, backup| {
        let weights = weights(&records.iter().map(|record| record.weight).collect::<Vec<_>>());
        records.into_iter().zip(weights).map(move |(record, weight)| Share { record, weight, backup })
    };
    weighted(first, false).chain(weighted(backups, true)).collect()
}

/// The addresses of the target in the additional section, or `None`.
fn came_along(record: &SRV, along: &[Record]) -> Option<Addresses> {
    let own = along.iter().filter(|other| other.name == record.target);
    let (mut addresses, mut ttl) = (Vec::new(), Duration::MAX);
    for record in own {
        if let Some(address) = address(record) {
            addresses.push(address);
            ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        }
    }
    (!addresses.is_empty()).then_some(Addresses { addresses, ttl })
}

/// Weights from 1 to 1000 in the proportions of `written`, as small as possible. RFC 2782 gives a weight of 0
/// beside others a very small chance, so the others are scaled up to 1000 then.
fn weights(written: &[u16]) -> Vec<u32> {
    let divisor = written.iter().fold(0, |divisor, weight| gcd(divisor, u64::from(*weight))).max(1);
    let greatest = written.iter().max().map_or(0, |weight| u64::from(*weight)) / divisor;
    let has_zero = written.contains(&0) && greatest > 0;
    let scaled = |weight: &u16| {
        let weight = u64::from(*weight) / divisor;
        let share = if has_zero || greatest > GREATEST { weight * GREATEST / greatest } else { weight };
        u32::try_from(share.max(1)).unwrap_or(u32::MAX)
    };
    written.iter().map(scaled).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use hickory_proto::rr::{Name, RData};
    use proptest::prelude::*;

    use super::*;

    fn srv(priority: u16, weight: u16, port: u16, target: &str) -> SRV {
        SRV::new(priority, weight, port, Name::from_ascii(target).unwrap())
    }

    #[test]
    fn weights_keep_their_proportions_in_the_smallest_numbers() {
        assert_eq!(weights(&[33, 33, 33]), [1, 1, 1]);
        assert_eq!(weights(&[10, 60, 30]), [1, 6, 3]);
        assert_eq!(weights(&[65_535, 32_767]), [1000, 499]);
        assert_eq!(weights(&[0, 0]), [1, 1]);
        assert_eq!(weights(&[0, 10, 20]), [1, 500, 1000]);
        assert_eq!(weights(&[]), Vec::<u32>::new());
    }

    #[test]
    fn all_but_the_lowest_priority_are_backups_and_a_refused_service_has_no_target() {
        let records =
            vec![srv(10, 7, 80, "b."), srv(5, 20, 81, "a."), srv(5, 60, 82, "c."), srv(1, 1, 0, ".")];
        let found: Vec<_> = shares(records)
            .into_iter()
            .map(|share| (share.record.port, share.weight, share.backup))
            .collect();
        assert_eq!(found, [(81, 1, false), (82, 3, false), (80, 1, true)]);
        assert_eq!(shares(vec![srv(0, 0, 0, ".")]), []);
    }

    #[test]
    fn addresses_that_came_along_are_taken_by_name_whatever_its_case() {
        let along: Vec<Record> = [("A.example.", 7, 1), ("b.example.", 5, 2), ("a.example.", 3, 3)]
            .map(|(name, ttl, end)| {
                let address = RData::A(std::net::Ipv4Addr::new(10, 0, 0, end).into());
                Record::from_rdata(Name::from_ascii(name).unwrap(), ttl, address)
            })
            .into();
        let found = came_along(&srv(1, 1, 80, "a.example."), &along).unwrap();
        let addresses = [1, 3].map(|end| IpAddr::from([10, 0, 0, end]));
        assert_eq!(found, Addresses { addresses: addresses.into(), ttl: Duration::from_secs(3) });
        assert_eq!(came_along(&srv(1, 1, 80, "c.example."), &along), None);
    }

    proptest! {
        #[test]
        fn every_weight_is_one_that_an_instance_can_have(written in proptest::collection::vec(any::<u16>(), 0..50)) {
            let weights = weights(&written);
            prop_assert_eq!(weights.len(), written.len());
            prop_assert!(weights.iter().all(|weight| (1..=1000).contains(weight)));
            for (a, b) in (0..written.len()).zip(1..written.len()) {
                prop_assert!(written[a] < written[b] || weights[a] >= weights[b]);
            }
        }
    }
}
