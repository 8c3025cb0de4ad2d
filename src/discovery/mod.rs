//! Service discovery: instances that are looked up at run time, in DNS or in a file.
//!
//! One task per upstream repeats the look-up: in DNS when the TTL of the records is over, in a file every
//! second. A failed look-up changes nothing: the last good set is kept, and the failure is logged and counted
//! in the metrics. Sets are sorted by address, so that all proxies have the same order.

mod dns;
mod failure;
mod file;
mod source;
mod state;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use crate::config::{Config, Instance, Upstream};
pub use state::State;
use watcher::Watcher;

/// The look-ups of all upstreams. Dropping it stops them.
#[derive(Debug, Default)]
pub struct Discovery {
    watchers: BTreeMap<String, Watcher>,
    news: Arc<Notify>,
    board: DiscoveryStatus,
}

/// The state of all look-ups. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct DiscoveryStatus(Arc<ArcSwap<BTreeMap<String, watch::Receiver<State>>>>);

impl DiscoveryStatus {
    /// The states, by the name of the upstream.
    pub fn states(&self) -> BTreeMap<String, State> {
        self.0.load().iter().map(|(name, state)| (name.clone(), state.borrow().clone())).collect()
    }
}

impl Discovery {
    /// Starts the look-ups that these upstreams configure, and stops all others. Unchanged look-ups continue.
    /// A changed one keeps the last good set until its first success. Must be called within a runtime.
    pub fn follow(&mut self, upstreams: &[Upstream]) {
        let mut before = std::mem::take(&mut self.watchers);
        for Upstream { name, discovery, .. } in upstreams {
            let Some(discovery) = discovery else { continue };
            let watcher = match before.remove(name) {
                Some(watcher) if watcher.discovery == *discovery => watcher,
                other => Watcher::start(name, discovery, other.as_ref(), self.news.clone()),
            };
            self.watchers.insert(name.clone(), watcher);
        }
        let states = self.watchers.iter().map(|(name, watcher)| (name.clone(), watcher.state.clone()));
        self.board.0.store(Arc::new(states.collect()));
    }

    /// Returns `config` with the last good sets appended to the configured instances. If an address is in
    /// both, the configured instance wins.
    pub fn complete(&self, config: &Config) -> Config {
        let mut config = config.clone();
        for upstream in &mut config.upstreams {
            let watcher = upstream.discovery.as_ref().and_then(|_| self.watchers.get(&upstream.name));
            if let Some(found) = watcher.and_then(|watcher| watcher.state.borrow().instances.clone()) {
                add(&mut upstream.instances, &found);
            }
        }
        config
    }

    /// Completes when a set has changed since the last completion. Cancel-safe.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    /// Completes when every look-up has finished once, with success or failure. Takes at most the longest
    /// `timeout`.
    pub async fn first_looks(&self) {
        for watcher in self.watchers.values() {
            // This cannot fail: a watcher's task ends only when `self` is dropped.
            let _ = watcher.state.clone().wait_for(|state| state.looked).await;
        }
    }

    /// The source of the metrics.
    pub fn board(&self) -> DiscoveryStatus {
        self.board.clone()
    }
}

fn add(written: &mut Vec<Instance>, found: &[Instance]) {
    let is_new = |one: &&Instance| written.iter().all(|other| other.address != one.address);
    let new: Vec<Instance> = found.iter().filter(is_new).cloned().collect();
    written.extend(new);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::NamedTempFile;

    use super::*;
    use crate::config;

    fn instances(ports: &[u16]) -> String {
        match ports {
            [] => "instance = []".to_owned(),
            ports => {
                ports.iter().map(|port| format!("[[instance]]\naddress = \"127.0.0.1:{port}\"\n")).collect()
            }
        }
    }

    fn file(text: &str) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    /// A configuration of one upstream with the instance 5009 and those in `file`.
    fn config(file: &NamedTempFile, keys: &str) -> Config {
        let text = format!(
            "version = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n[[route]]\nupstream = \"app\"\n\
             [[upstream]]\nname = \"app\"\n[[upstream.instance]]\naddress = \"127.0.0.1:5009\"\n\
             [upstream.discovery]\nfile = {:?}\n{keys}\n",
            file.path().to_str().unwrap()
        );
        config::parse(&text, "test").unwrap_or_else(|problems| panic!("{problems}"))
    }

    async fn started(config: &Config) -> Discovery {
        let mut discovery = Discovery::default();
        discovery.follow(&config.upstreams);
        discovery.first_looks().await;
        discovery
    }

    fn ports(discovery: &Discovery, config: &Config) -> Vec<u16> {
        let complete = discovery.complete(config);
        complete.upstreams[0].instances.iter().map(|instance| instance.address.port()).collect()
    }

    fn state(discovery: &Discovery) -> State {
        discovery.board().states().remove("app").unwrap()
    }

    /// Waits until `count` look-ups have failed.
    async fn failures(discovery: &Discovery, count: u64) {
        let mut states = discovery.watchers["app"].state.clone();
        states.wait_for(|state| state.failures >= count).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn instances_in_a_file_join_those_of_the_configuration() {
        let file = file(&instances(&[5002, 5001, 5009]));
        let config = config(&file, "");
        let discovery = started(&config).await;
        assert_eq!(ports(&discovery, &config), [5009, 5001, 5002]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_news_once_and_its_order_is_none() {
        let file = file(&instances(&[5001, 5002]));
        let config = config(&file, "");
        let discovery = started(&config).await;
        discovery.changed().await;
        fs::write(file.path(), instances(&[5002, 5001])).unwrap();
        let nothing = tokio::time::timeout(std::time::Duration::from_secs(60), discovery.changed()).await;
        assert!(nothing.is_err());
        fs::write(file.path(), instances(&[5003])).unwrap();
        discovery.changed().await;
        assert_eq!(ports(&discovery, &config), [5009, 5003]);
        assert_eq!(state(&discovery).changes, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_used_changes_nothing_until_it_can() {
        let file = file(&instances(&[5001]));
        let config = config(&file, "");
        let discovery = started(&config).await;
        for (count, text) in (1..).zip(["[[instance]]\naddress = \"here\"", "", "instance = []", "["]) {
            let before = state(&discovery).failures;
            fs::write(file.path(), text).unwrap();
            failures(&discovery, before + 2).await;
            assert_eq!(ports(&discovery, &config), [5009, 5001], "{text}");
            assert!(state(&discovery).failing && state(&discovery).failures > count, "{text}");
        }
        fs::write(file.path(), instances(&[5002])).unwrap();
        discovery.changed().await;
        discovery.changed().await;
        assert_eq!(ports(&discovery, &config), [5009, 5002]);
        assert!(!state(&discovery).failing);
    }

    #[tokio::test(start_paused = true)]
    async fn none_is_applied_when_it_is_said_and_wanted() {
        let file = file(&instances(&[5001]));
        let config = config(&file, "empty = \"apply\"");
        let discovery = started(&config).await;
        discovery.changed().await;
        fs::write(file.path(), "").unwrap();
        failures(&discovery, 2).await;
        assert_eq!(ports(&discovery, &config), [5009, 5001]);
        fs::write(file.path(), instances(&[])).unwrap();
        discovery.changed().await;
        assert_eq!(ports(&discovery, &config), [5009]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_not_there_is_waited_for() {
        let missing = file("");
        let config = config(&missing, "");
        let path = missing.path().to_owned();
        drop(missing);
        let discovery = started(&config).await;
        assert_eq!((ports(&discovery, &config), state(&discovery).failing), (vec![5009], true));
        fs::write(&path, instances(&[5001])).unwrap();
        discovery.changed().await;
        assert_eq!(ports(&discovery, &config), [5009, 5001]);
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn another_source_takes_over_with_its_first_good_answer() {
        let (old, new) = (file(&instances(&[5001])), file("["));
        let (before, after) = (config(&old, ""), config(&new, ""));
        let mut discovery = started(&before).await;
        discovery.changed().await;
        discovery.follow(&after.upstreams);
        discovery.first_looks().await;
        assert_eq!(ports(&discovery, &after), [5009, 5001]);
        fs::write(new.path(), instances(&[5002])).unwrap();
        discovery.changed().await;
        assert_eq!(ports(&discovery, &after), [5009, 5002]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stays_in_the_configuration_goes_on_and_what_is_gone_is_forgotten() {
        let file = file(&instances(&[5001]));
        let mut config = config(&file, "");
        let mut discovery = started(&config).await;
        discovery.follow(&config.upstreams);
        assert!(state(&discovery).looked);
        config.upstreams[0].discovery = None;
        discovery.follow(&config.upstreams);
        assert_eq!(ports(&discovery, &config), [5009]);
        assert!(discovery.board().states().is_empty());
    }
}
