//! The source of a set of instances, and when to look it up again.

use std::time::Duration;

use super::dns::Dns;
use super::failure::Failure;
use super::file::InstanceFile;
use crate::config::{Discovery, DiscoverySource, Instance, OnEmpty};

/// Interval between two reads of a file.
const FILE_POLL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Source {
    kind: Kind,
    empty: OnEmpty,
    max_requests: Option<usize>,
}

#[derive(Debug)]
enum Kind {
    Dns(Dns),
    File(InstanceFile),
}

/// The result of a look-up.
#[derive(Debug)]
pub(super) struct DiscoveryResult {
    /// Sorted by address, without duplicates.
    pub(super) found: Result<Vec<Instance>, Failure>,
    /// Pause until the next look-up.
    pub(super) again: Duration,
}

impl Source {
    pub(super) fn new(discovery: &Discovery) -> Self {
        let kind = match &discovery.source {
            DiscoverySource::Dns(dns) => Kind::Dns(Dns::new(dns)),
            DiscoverySource::File(path) => Kind::File(InstanceFile::new(path, discovery.max_requests)),
        };
        Source { kind, empty: discovery.empty, max_requests: discovery.max_requests }
    }

    /// Makes one look-up.
    pub(super) async fn look(&mut self) -> DiscoveryResult {
        let (found, again) = match &mut self.kind {
            Kind::Dns(dns) => {
                let (mut found, again) = dns.look().await;
                for instance in found.iter_mut().flatten() {
                    instance.max_requests = self.max_requests;
                }
                (found, again)
            }
            Kind::File(file) => (file.look().await, FILE_POLL),
        };
        DiscoveryResult { found: judged(found, self.empty), again }
    }
}

/// Applies the setting `empty` to a look-up that found no instances: an empty set with [`OnEmpty::Apply`], a
/// failure with [`OnEmpty::Keep`]. Sorts the set and removes duplicates.
fn judged(found: Result<Vec<Instance>, Failure>, empty: OnEmpty) -> Result<Vec<Instance>, Failure> {
    let mut set = match (found, empty) {
        (Err(Failure::Empty(_)), OnEmpty::Apply) => Vec::new(),
        (Ok(set), OnEmpty::Keep) if set.is_empty() => return Err(Failure::Empty("the answer".to_owned())),
        (found, _) => found?,
    };
    set.sort_by_key(|instance| instance.address);
    set.dedup_by_key(|instance| instance.address);
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(ports: &[u16]) -> Vec<Instance> {
        let instance = |port: &u16| Instance::at(([127, 0, 0, 1], *port).into());
        ports.iter().map(instance).collect()
    }

    #[test]
    fn sets_are_sorted_and_hold_each_address_once() {
        for empty in [OnEmpty::Keep, OnEmpty::Apply] {
            assert_eq!(judged(Ok(instances(&[3, 1, 3, 2])), empty).unwrap(), instances(&[1, 2, 3]));
        }
    }

    #[test]
    fn none_is_a_failure_unless_it_is_to_be_applied() {
        let empty = || Err(Failure::Empty("app".into()));
        assert!(matches!(judged(empty(), OnEmpty::Keep), Err(Failure::Empty(_))));
        assert!(matches!(judged(Ok(Vec::new()), OnEmpty::Keep), Err(Failure::Empty(_))));
        assert_eq!(judged(empty(), OnEmpty::Apply).unwrap(), []);
        assert_eq!(judged(Ok(Vec::new()), OnEmpty::Apply).unwrap(), []);
        let unknown = judged(Err(Failure::Unknown("app".into())), OnEmpty::Apply);
        assert!(matches!(unknown, Err(Failure::Unknown(_))));
    }
}
