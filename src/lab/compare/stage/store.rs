//! The session store of a run.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::directory::Directory;
use super::process::{Process, Program};
use super::relay::Relay;
use super::resp::command;
use super::{PATIENCE, PAUSE, StageError};

const MASTER: &str = "main";
/// Sentinel's `down-after-milliseconds`.
const DOWN_AFTER: Duration = Duration::from_millis(700);

/// The kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lab::compare) enum StoreKind {
    /// In the proxy's own memory.
    Memory,
    /// In one Redis.
    Redis,
    /// In a Redis with a replica and a Sentinel.
    Sentinel,
}

impl StoreKind {
    /// In words, with what remains unmeasured.
    pub(in crate::lab::compare) fn words(self) -> &'static str {
        match self {
            StoreKind::Memory => {
                "vestibule's own memory (`memory:`), as no redis-server was found: commands and bytes to a store, \
                 and what its network adds, were not measured"
            }
            StoreKind::Redis => "a Redis on the same machine, started for each run",
            StoreKind::Sentinel => {
                "a Redis with one replica and one Sentinel on the same machine, started for each run; commands and \
                 bytes were not measured, as replica and Sentinel add theirs"
            }
        }
    }
}

/// The path of `redis-server`, if installed.
pub(in crate::lab::compare) fn redis_server() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join("redis-server")).find(|file| file.is_file())
}

/// A running store.
#[derive(Debug)]
pub(super) struct Store {
    kind: StoreKind,
    /// The primary, then the replica.
    servers: Vec<Server>,
    sentinel: Option<Server>,
    /// Adds network latency.
    relay: Option<Relay>,
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    /// `None`: killed.
    process: Option<Process>,
}

/// The usage of a store since its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StoreUsage {
    pub(super) commands: f64,
    pub(super) bytes: f64,
}

impl Store {
    /// Starts the store. `StoreKind::Redis` gets a relay that adds a round trip of `delay`.
    pub(super) async fn start(
        kind: StoreKind,
        delay: Duration,
        directory: &Directory,
    ) -> Result<Self, StageError> {
        let mut store = Store { kind, servers: Vec::new(), sentinel: None, relay: None };
        let count = match kind {
            StoreKind::Memory => 0,
            StoreKind::Redis => 1,
            StoreKind::Sentinel => 2,
        };
        for number in 1..=count {
            store.servers.push(Server::start(number, directory).await?);
        }
        if let (StoreKind::Sentinel, [primary, replica]) = (kind, store.servers.as_slice()) {
            replicate(primary.address, replica.address).await?;
            store.sentinel = Some(Server::sentinel(primary.address, directory).await?);
        }
        if let (false, StoreKind::Redis, [server]) = (delay.is_zero(), kind, store.servers.as_slice()) {
            let relay = Relay::start(server.address, delay / 2).await.map_err(StageError::Store)?;
            store.relay = Some(relay);
        }
        Ok(store)
    }

    /// The value of `session.store.url`.
    pub(super) fn url(&self) -> String {
        match (&self.sentinel, self.servers.first()) {
            (Some(sentinel), _) => format!("redis+sentinel://{}/{MASTER}/0", sentinel.address),
            (None, Some(server)) => {
                let address = self.relay.as_ref().map_or(server.address, |relay| relay.address);
                format!("redis://{address}/0")
            }
            (None, None) => "memory:".to_owned(),
        }
    }

    /// `None` where the usage cannot be measured.
    pub(super) async fn usage(&self) -> Result<Option<StoreUsage>, StageError> {
        let (StoreKind::Redis, [server]) = (self.kind, self.servers.as_slice()) else { return Ok(None) };
        let about = command(server.address, &["INFO", "everything"]).await.map_err(StageError::Store)?;
        Ok(about.first().map(|about| usage(about)))
    }

    /// Kills the primary and waits until Sentinel has promoted another.
    pub(super) async fn fail_over(&mut self) -> Result<(), StageError> {
        let (Some(primary), Some(sentinel)) = (self.servers.first_mut(), &self.sentinel) else {
            return Ok(());
        };
        if let Some(process) = primary.process.take() {
            process.kill().await;
        }
        let (old, sentinel) = (primary.address.port().to_string(), sentinel.address);
        let replaced = until(async || {
            let named = command(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER]).await?;
            Ok(named.get(1).is_some_and(|port| *port != old))
        });
        if replaced.await { Ok(()) } else { Err(StageError::NoFailover) }
    }
}

impl Server {
    async fn start(number: usize, directory: &Directory) -> Result<Self, StageError> {
        let name = format!("redis-{number}");
        Self::run(&name, |port| {
            let options = [
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--repl-diskless-sync-delay",
                "0",
            ];
            let mut arguments: Vec<String> = options.map(str::to_owned).to_vec();
            arguments.extend(["--port".to_owned(), port.to_string(), "--dir".to_owned()]);
            arguments.push(directory.path().display().to_string());
            Ok(arguments)
        })
        .await
    }

    async fn sentinel(primary: SocketAddr, directory: &Directory) -> Result<Self, StageError> {
        Self::run("sentinel", |port| {
            let text = format!(
                "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor {MASTER} {} {} 1\n\
                 sentinel down-after-milliseconds {MASTER} {}\nsentinel failover-timeout {MASTER} 3000\n",
                directory.path().display(),
                primary.ip(),
                primary.port(),
                DOWN_AFTER.as_millis(),
            );
            let file = directory.write("sentinel.conf", &text).map_err(StageError::Directory)?;
            Ok(vec![file.display().to_string(), "--sentinel".to_owned()])
        })
        .await
    }

    /// Starts a server on a free port. Retries when another program takes the port first.
    async fn run(
        name: &str,
        arguments: impl Fn(u16) -> Result<Vec<String>, StageError>,
    ) -> Result<Self, StageError> {
        const TRIES: usize = 5;
        let mut tried = 0;
        loop {
            tried += 1;
            let address = free_address().map_err(StageError::Store)?;
            let program = Program {
                name: name.to_owned(),
                program: "redis-server".into(),
                arguments: arguments(address.port())?.into_iter().map(Into::into).collect(),
                environment: Vec::new(),
            };
            let mut process = Process::start(&program).await?;
            let said = process.told(|line| {
                let ready = line.contains("Ready to accept connections") || line.contains("Sentinel ID is");
                ready.then_some(())
            });
            match said.await {
                Ok(()) => return Ok(Server { address, process: Some(process) }),
                Err(StageError::Ended { .. }) if tried < TRIES => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Makes `replica` follow `primary` and waits until it does.
async fn replicate(primary: SocketAddr, replica: SocketAddr) -> Result<(), StageError> {
    let (ip, port) = (primary.ip().to_string(), primary.port().to_string());
    command(replica, &["REPLICAOF", &ip, &port]).await.map_err(StageError::Store)?;
    let follows = until(async || {
        let about = command(replica, &["INFO", "replication"]).await?;
        Ok(about.first().is_some_and(|about| about.contains("master_link_status:up")))
    });
    if follows.await { Ok(()) } else { Err(StageError::Store(io::ErrorKind::TimedOut.into())) }
}

/// Polls for a state that is not signalled otherwise. Returns whether it was reached in time. Errors count as
/// not reached.
async fn until(is_so: impl AsyncFn() -> io::Result<bool>) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if is_so().await.unwrap_or_default() {
            return true;
        }
        sleep(PAUSE).await;
    }
    false
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Parses commands and bytes from `INFO`. Excludes the comparison's own commands.
fn usage(about: &str) -> StoreUsage {
    let mut usage = StoreUsage { commands: 0.0, bytes: 0.0 };
    for (name, value) in about.lines().filter_map(|line| line.split_once(':')) {
        match name {
            "cmdstat_info" => {}
            "total_net_input_bytes" | "total_net_output_bytes" => {
                usage.bytes += value.trim().parse().unwrap_or(0.0);
            }
            name if name.starts_with("cmdstat_") => usage.commands += calls(value).unwrap_or(0.0),
            _ => {}
        }
    }
    usage
}

/// The calls in a value such as `calls=12,usec=…`.
fn calls(value: &str) -> Option<f64> {
    value.strip_prefix("calls=")?.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_clients_and_bytes_both_ways_are_summed() {
        let about = "# Stats\r\ntotal_net_input_bytes:100\r\ntotal_net_output_bytes:20\r\n# Commandstats\r\n\
                     cmdstat_info:calls=9,usec=1\r\ncmdstat_hgetall:calls=5,usec=7,x=1\r\ncmdstat_ping:calls=2,usec=1\r\n";
        assert_eq!(usage(about), StoreUsage { commands: 7.0, bytes: 120.0 });
    }
}
