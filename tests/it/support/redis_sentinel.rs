//! A Redis primary, two replicas and three sentinels that watch them, all of our own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::Process;
use super::redis::{Redis, patient};
use super::within;

/// Six processes; dropping this ends them.
pub(crate) struct Sentinels {
    /// The first is the primary to begin with.
    pub(crate) redis: Vec<Redis>,
    sentinels: Vec<Sentinel>,
}

/// One of them, or one that knows none of the others.
pub(crate) struct Sentinel {
    pub(crate) address: SocketAddr,
    directory: TempDir,
    process: Option<Process>,
}

impl Sentinels {
    /// Starts all of them and waits until they know each other. A primary is down when it has not answered for
    /// 700 ms.
    pub(crate) async fn start() -> Self {
        let redis = vec![Redis::start().await, Redis::start().await, Redis::start().await];
        let primary = redis[0].address();
        for replica in &redis[1..] {
            let () = replica.command("CONFIG", ["SET", "repl-diskless-sync-delay", "0"].as_slice()).await;
            let () = replica.command("REPLICAOF", (primary.ip().to_string(), primary.port())).await;
        }
        let () = redis[0].command("CONFIG", ["SET", "repl-diskless-sync-delay", "0"].as_slice()).await;
        for replica in &redis[1..] {
            until("replication", async || {
                let info: String = replica.command("INFO", "replication").await;
                info.contains("master_link_status:up")
            })
            .await;
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Sentinel::start(primary).await);
        }
        let all = Self { redis, sentinels };
        for index in 0..3 {
            until("sentinels to meet", async || {
                let about: Vec<String> = all.ask(index, &["SENTINEL", "MASTER", "main"]).await;
                let value = |key| about.iter().position(|name| name == key).map(|at| about[at + 1].as_str());
                (value("num-other-sentinels"), value("num-slaves")) == (Some("2"), Some("2"))
            })
            .await;
        }
        all
    }

    /// `redis+sentinel://…/main/0`
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|sentinel| sentinel.address.to_string()).collect();
        format!("redis+sentinel://{}/main/0", hosts.join(","))
    }

    /// Lets the sentinels replace a healthy primary, and waits until all of them know.
    pub(crate) async fn failover(&self) {
        let before = self.named(0).await;
        let _: String = self.ask(0, &["SENTINEL", "FAILOVER", "main"]).await;
        self.until_replaced(before).await;
    }

    /// Waits until every live sentinel names another primary than `before`.
    pub(crate) async fn until_replaced(&self, before: u16) {
        for (index, sentinel) in self.sentinels.iter().enumerate() {
            if sentinel.process.is_some() {
                until("a new primary", async || self.named(index).await != before).await;
            }
        }
    }

    /// The port of the primary that a sentinel names.
    pub(crate) async fn named(&self, index: usize) -> u16 {
        let (_, port): (String, u16) =
            self.ask(index, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"]).await;
        port
    }

    /// The server that the first live sentinel names.
    pub(crate) async fn primary(&self) -> &Redis {
        let index = self.sentinels.iter().position(|sentinel| sentinel.process.is_some()).unwrap();
        let port = self.named(index).await;
        self.redis.iter().find(|redis| redis.address().port() == port).unwrap()
    }

    /// The place in `redis` of the primary that a sentinel names.
    pub(crate) async fn named_index(&self, sentinel: usize) -> usize {
        let port = self.named(sentinel).await;
        self.redis.iter().position(|redis| redis.address().port() == port).unwrap()
    }

    /// Begins to replace a healthy primary, without waiting for it. It may be under way already: a server that was busy
    /// for long counts as dead.
    pub(crate) async fn begin_failover(&self) {
        let begun: redis::RedisResult<String> = self.try_ask(1, &["SENTINEL", "FAILOVER", "main"]).await;
        if let Err(error) = begun
            && error.code() != Some("INPROG")
        {
            panic!("{error}");
        }
    }

    /// Lets another failover begin so soon after one, twice this, and news of the servers come at once.
    pub(crate) async fn hurry(&self, failover_timeout: Duration) {
        let millis = failover_timeout.as_millis().to_string();
        for index in 0..self.sentinels.len() {
            let _: String = self.ask(index, &["SENTINEL", "SET", "main", "failover-timeout", &millis]).await;
            let _: String = self.ask(index, &["SENTINEL", "DEBUG", "INFO-PERIOD", "200"]).await;
        }
    }

    /// Lets news of the servers come every ten seconds, as without [`hurry`](Self::hurry).
    pub(crate) async fn hurry_no_more(&self) {
        for index in 0..self.sentinels.len() {
            let _: String = self.ask(index, &["SENTINEL", "DEBUG", "INFO-PERIOD", "10000"]).await;
        }
    }

    /// Brings a stopped server back as a replica of the primary, lets the sentinels rather choose the server
    /// `preferred`, and waits until both replicas follow and all sentinels know all that.
    pub(crate) async fn complete(&mut self, stopped: Option<usize>, preferred: usize) {
        if let Some(stopped) = stopped {
            self.redis[stopped].restart().await;
        }
        for (index, redis) in self.redis.iter().enumerate() {
            let priority = if index == preferred { "1" } else { "100" };
            until("a priority", async || {
                attempt::<()>(redis, "CONFIG", &["SET", "replica-priority", priority]).await.is_some()
            })
            .await;
            until("replication", async || self.follows(redis).await).await;
        }
        let preferred = self.redis[preferred].address().port().to_string();
        for index in 0..self.sentinels.len() {
            until("a sentinel to know", async || {
                let known = self.replicas(index).await;
                known.len() == 2
                    && known.iter().all(|replica| {
                        let priority = if replica["port"] == preferred { "1" } else { "100" };
                        replica["flags"] == "slave"
                            && replica["slave-priority"] == priority
                            && replica["master-link-status"] == "ok"
                    })
            })
            .await;
        }
    }

    /// What a sentinel knows of each replica.
    pub(crate) async fn replicas(&self, sentinel: usize) -> Vec<HashMap<String, String>> {
        self.ask(sentinel, &["SENTINEL", "REPLICAS", "main"]).await
    }

    /// Whether a server is the primary or follows it; told to if not.
    async fn follows(&self, redis: &Redis) -> bool {
        let primary = self.named(0).await.to_string();
        if redis.address().port().to_string() == primary {
            return true;
        }
        let Some(info) = attempt::<String>(redis, "INFO", &["replication"]).await else { return false };
        if !info.contains(&format!("master_port:{primary}")) {
            attempt::<()>(redis, "REPLICAOF", &["127.0.0.1", &primary]).await;
        }
        info.contains(&format!("master_port:{primary}\r\nmaster_link_status:up"))
    }

    /// Where a sentinel is.
    pub(crate) fn address(&self, index: usize) -> SocketAddr {
        self.sentinels[index].address
    }

    /// Kills a sentinel.
    pub(crate) fn stop_sentinel(&mut self, index: usize) {
        self.sentinels[index].process = None;
    }

    /// Stops a sentinel from answering while its connections stay open.
    pub(crate) fn freeze_sentinel(&self, index: usize) {
        self.sentinels[index].process.as_ref().unwrap().signal("STOP");
    }

    /// Ends a [`freeze_sentinel`](Self::freeze_sentinel).
    pub(crate) fn thaw_sentinel(&self, index: usize) {
        self.sentinels[index].process.as_ref().unwrap().signal("CONT");
    }

    /// Lets clients come as this user; they may still come as nobody in particular.
    pub(crate) async fn add_user(&self, name: &str, password: &str) {
        for index in 0..self.sentinels.len() {
            let password = format!(">{password}");
            let rule = ["ACL", "SETUSER", name, "on", &password, "+@all", "allchannels"];
            let _: String = self.ask(index, &rule).await;
        }
    }

    /// Makes a sentinel forget what it watches and watch this server instead.
    pub(crate) async fn mislead(&self, index: usize, to: &Redis) {
        let _: String = self.ask(index, &["SENTINEL", "REMOVE", "main"]).await;
        let (ip, port) = (to.address().ip().to_string(), to.address().port().to_string());
        let _: String = self.ask(index, &["SENTINEL", "MONITOR", "main", &ip, &port, "3"]).await;
    }

    async fn ask<T: redis::FromRedisValue>(&self, index: usize, command: &[&str]) -> T {
        self.try_ask(index, command).await.unwrap()
    }

    async fn try_ask<T: redis::FromRedisValue>(
        &self,
        index: usize,
        command: &[&str],
    ) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://{}", self.sentinels[index].address)).unwrap();
        within("sentinel", async {
            let mut connection = patient(&client).await.unwrap();
            let mut sent = redis::cmd(command[0]);
            sent.arg(&command[1..]).query_async(&mut connection).await
        })
        .await
    }
}

impl Sentinel {
    /// Starts one that watches this server, and waits until it listens.
    pub(crate) async fn start(primary: SocketAddr) -> Self {
        loop {
            let address = super::redis::free_address();
            let directory = tempfile::tempdir().unwrap();
            let config = directory.path().join("sentinel.conf");
            let (ip, port) = (primary.ip(), primary.port());
            let text = format!(
                "bind 127.0.0.1\nport {}\nsentinel monitor main {ip} {port} 2\n\
                 sentinel down-after-milliseconds main 700\nsentinel failover-timeout main 3000\n\
                 sentinel parallel-syncs main 2\n",
                address.port()
            );
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new("redis-server");
            let process =
                Process::start(command.arg(&config).arg("--sentinel").current_dir(directory.path()));
            let listens = process.wait_for_line("sentinel", |line| match line {
                line if line.contains("Sentinel ID is") => Some(true),
                line if line.contains("Could not create server") || line.contains("Failed listening") => {
                    Some(false)
                }
                _ => None,
            });
            if listens.await {
                return Self { address, directory, process: Some(process) };
            }
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It writes into its directory as long as it runs.
        self.process = None;
        let _ = std::fs::remove_dir_all(self.directory.path());
    }
}

/// The answer of a server that may just be cutting its connections, as sentinels let it.
pub(crate) async fn attempt<T: redis::FromRedisValue>(
    server: &Redis,
    name: &str,
    arguments: &[&str],
) -> Option<T> {
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    redis::cmd(name).arg(arguments).query_async(&mut connection).await.ok()
}

/// Asks again and again, for what nobody announces.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let patience = Duration::from_secs(120);
    let asked = tokio::time::timeout(patience, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await; // it is for asking, not for waiting
        }
    });
    asked.await.unwrap_or_else(|_| panic!("{what}: not within {patience:?}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failover_makes_another_server_the_primary() {
        let sentinels = Sentinels::start().await;
        let before = sentinels.named(0).await;
        assert_eq!(before, sentinels.redis[0].address().port());
        sentinels.failover().await;
        assert_ne!(sentinels.primary().await.address().port(), before);
    }
}
