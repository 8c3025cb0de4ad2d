//! The stage of one run: the proxy, the instances and the store. Each is a separate process that ends with
//! the comparison.

mod ask;
mod config;
mod directory;
mod error;
mod guard;
mod instance;
mod process;
mod proxy;
mod relay;
mod resp;
mod store;
mod usage;

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::mode::SessionMode;
use super::target::Target;
use crate::secret::random_bytes;
use directory::Directory;
use instance::Instance;
use proxy::Proxy;
use store::Store;

pub use error::StageError;
pub use guard::guard;
pub(super) use instance::Life;
pub(super) use store::{StoreKind, redis_server};

/// Longest time until the store is ready.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the idle usage is measured; includes eight health checks of every instance.
const IDLE: Duration = Duration::from_secs(2);
/// Polling interval.
const PAUSE: Duration = Duration::from_millis(20);

/// The parameters of a stage.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) target: Target,
    pub(super) mode: SessionMode,
    pub(super) store: StoreKind,
    pub(super) store_delay: Duration,
    /// Whether some instances are added by the scale-out.
    pub(super) scales_out: bool,
}

/// All running processes. Dropping it ends all of them.
#[derive(Debug)]
pub(super) struct Stage {
    proxy: Proxy,
    instances: Vec<Instance>,
    /// Indices of the instances that the proxy knows.
    known: Vec<usize>,
    store: Store,
    configuration: String,
    /// The last field, because it is dropped last: no process writes into the directory any more.
    directory: Directory,
}

/// Resource usage of the proxy and the store so far. `None` where it is not available.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usage {
    /// CPU time of the proxy, in microseconds.
    pub(super) processor: Option<f64>,
    /// Peak memory of the proxy, in MiB.
    pub(super) memory: Option<f64>,
    pub(super) store_commands: Option<f64>,
    pub(super) store_bytes: Option<f64>,
}

/// Usage without any request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Idle {
    pub(super) per_second: Usage,
    /// The cost of one usage query itself.
    pub(super) asking: Usage,
}

impl Usage {
    #[cfg(test)]
    pub(super) const NOTHING: Usage =
        Usage { processor: None, memory: None, store_commands: None, store_bytes: None };

    /// The difference to `earlier`. Peak memory is kept.
    pub(super) fn less(&self, earlier: &Usage) -> Usage {
        let less = |own: Option<f64>, other: Option<f64>| Some(own? - other?);
        Usage {
            processor: less(self.processor, earlier.processor),
            memory: self.memory,
            store_commands: less(self.store_commands, earlier.store_commands),
            store_bytes: less(self.store_bytes, earlier.store_bytes),
        }
    }

    /// Scaled by `factor`. Peak memory is kept.
    pub(super) fn times(&self, factor: f64) -> Usage {
        let times = |own: Option<f64>| Some(own? * factor);
        Usage {
            processor: times(self.processor),
            memory: self.memory,
            store_commands: times(self.store_commands),
            store_bytes: times(self.store_bytes),
        }
    }
}

impl Stage {
    /// Starts everything and waits until it is ready.
    pub(super) async fn set(scene: &Scene) -> Result<Self, StageError> {
        let Scene { target, mode, store, store_delay, scales_out } = scene;
        let directory = Directory::create().map_err(StageError::Directory)?;
        let store = if mode.is_shared() { *store } else { StoreKind::Memory };
        let store = Store::start(store, *store_delay, &directory).await?;
        let mut instances = Instance::all(target, *mode, directory.path());
        let known: Vec<usize> =
            (0..instances.len()).filter(|index| !(*scales_out && target.comes_later(*index))).collect();
        for index in &known {
            if let Some(instance) = instances.get_mut(*index) {
                instance.start().await?;
            }
        }
        let list = directory.path().join("instances.toml");
        let configuration = config::proxy(target, *mode, &store.url(), &list);
        let config = directory.write("vestibule.toml", &configuration).map_err(StageError::Directory)?;
        directory.write("instances.toml", &listed(&instances, &known)).map_err(StageError::Directory)?;
        let proxy = Proxy::start(config, token()?, target.patience()).await?;
        let configuration = config::shown(target, &configuration);
        let stage = Stage { proxy, instances, known, store, configuration, directory };
        stage.proxy.serves(&stage.known_addresses()).await?;
        Ok(stage)
    }

    /// The address for the users.
    pub(super) fn address(&self) -> SocketAddr {
        self.proxy.address
    }

    /// The proxy's configuration, without secrets.
    pub(super) fn configuration(&self) -> String {
        self.configuration.replace(&format!("{}/", self.directory.path().display()), "")
    }

    /// The name of an instance.
    pub(super) fn name(&self, index: usize) -> &str {
        self.instances.get(index).map_or("", |instance| &instance.name)
    }

    /// The names of the instances that the proxy knows.
    pub(super) fn names(&self) -> Vec<String> {
        self.known.iter().filter_map(|index| Some(self.instances.get(*index)?.name.clone())).collect()
    }

    /// Kills an instance.
    pub(super) async fn kill(&mut self, index: usize) {
        if let Some(instance) = self.instances.get_mut(index) {
            instance.kill().await;
        }
    }

    /// Restarts an instance and waits until it receives requests again.
    pub(super) async fn bring_back(&mut self, index: usize) -> Result<(), StageError> {
        let Some(instance) = self.instances.get_mut(index) else { return Ok(()) };
        instance.start().await?;
        let address = instance.address;
        self.proxy.serves(&[address]).await
    }

    /// Starts the instances of the scale-out and waits until they receive requests. Returns their names.
    pub(super) async fn scale_out(&mut self) -> Result<Vec<String>, StageError> {
        let mut names = Vec::new();
        for (index, instance) in self.instances.iter_mut().enumerate() {
            if !self.known.contains(&index) {
                instance.start().await?;
                self.known.push(index);
                names.push(instance.name.clone());
            }
        }
        let list = listed(&self.instances, &self.known);
        self.directory.write("instances.toml", &list).map_err(StageError::Directory)?;
        self.proxy.serves(&self.known_addresses()).await?;
        Ok(names)
    }

    /// Replaces an instance like a careful operator: drains it for at most `patience`, stops it, restarts it,
    /// and sets it ready.
    pub(super) async fn replace(&mut self, index: usize, patience: Duration) -> Result<(), StageError> {
        let Some(instance) = self.instances.get_mut(index) else { return Ok(()) };
        let address = instance.address;
        let deadline = format!("{}ms", patience.as_millis());
        self.proxy.order(address, json!({"state": "drain", "deadline": deadline, "then": "keep"})).await?;
        let begun = Instant::now();
        while begun.elapsed() < patience * 2 {
            let row = self.proxy.row(address).await?;
            if row.is_none_or(|row| row.requests == 0 && row.state == "down") {
                break;
            }
            sleep(PAUSE).await;
        }
        instance.stop().await;
        instance.start().await?;
        self.proxy.serves(&[address]).await?;
        self.proxy.order(address, json!({"state": "ready"})).await
    }

    /// Kills the store's primary and waits for the failover.
    pub(super) async fn fail_store_over(&mut self) -> Result<(), StageError> {
        self.store.fail_over().await
    }

    /// The usage so far.
    pub(super) async fn usage(&self) -> Result<Usage, StageError> {
        let store = self.store.usage().await?;
        Ok(Usage {
            processor: usage::processor(self.proxy.id()),
            memory: usage::peak_memory(self.proxy.id()),
            store_commands: store.map(|store| store.commands),
            store_bytes: store.map(|store| store.bytes),
        })
    }

    /// Measures the idle usage. Takes two seconds.
    pub(super) async fn idle(&self) -> Result<Idle, StageError> {
        let first = self.usage().await?;
        let (before, began) = (self.usage().await?, Instant::now());
        sleep(IDLE).await;
        let (after, passed) = (self.usage().await?, began.elapsed());
        let asking = before.less(&first);
        Ok(Idle { per_second: after.less(&before).less(&asking).times(1.0 / passed.as_secs_f64()), asking })
    }

    /// The session ledgers of the instances, one per life. Empty for instances without ledgers.
    pub(super) fn ledgers(&self) -> Result<Vec<(Life, String)>, StageError> {
        let lives = self.instances.iter().flat_map(Instance::lives);
        let read = lives.map(|life| Ok((life.clone(), fs::read_to_string(&life.ledger)?)));
        read.collect::<Result<_, _>>().map_err(StageError::Directory)
    }

    fn known_addresses(&self) -> Vec<SocketAddr> {
        self.known.iter().filter_map(|index| Some(self.instances.get(*index)?.address)).collect()
    }
}

/// The text of the instance file.
fn listed(instances: &[Instance], known: &[usize]) -> String {
    known.iter().filter_map(|index| instances.get(*index)).fold(String::new(), |mut text, instance| {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "[[instance]]\naddress = \"{}\"", instance.address);
        text
    })
}

/// A new token for the proxy's admin API.
fn token() -> Result<String, StageError> {
    Ok(random_bytes::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}
