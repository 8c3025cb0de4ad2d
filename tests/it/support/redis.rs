//! A real `redis-server` of our own, which can be stopped, frozen and brought back.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, ToRedisArgs};
use tempfile::TempDir;

use super::process::Process;
use super::within;

/// A connection that waits as long as a busy machine takes: by itself the driver waits half a second for an answer.
pub(crate) async fn patient(client: &redis::Client) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// A Redis that keeps its data only when told to; dropping it ends it.
pub(crate) struct Redis {
    address: SocketAddr,
    directory: TempDir,
    options: &'static [&'static str],
    process: Option<Process>,
}

impl Redis {
    /// Starts on a free port and waits until it takes connections.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Likewise, as a node of a cluster that it has yet to meet.
    pub(crate) async fn start_in_cluster() -> Self {
        Self::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "3000",
            "--repl-diskless-sync-delay",
            "0",
            "--enable-debug-command",
            "local",
        ])
        .await
    }

    /// Likewise, one that speaks no RESP3, like those before version 6.
    pub(crate) async fn start_without_resp3() -> Self {
        Self::start_with(&["--rename-command", "HELLO", ""]).await
    }

    /// Likewise, with these options.
    pub(crate) async fn start_with(options: &'static [&'static str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        loop {
            let address = free_address();
            if let Some(process) = start_on(address, directory.path(), options).await {
                return Self { address, directory, options, process: Some(process) };
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// Runs one command and returns its answer.
    pub(crate) async fn command<T: FromRedisValue>(&self, name: &str, arguments: impl ToRedisArgs) -> T {
        self.try_command(name, arguments).await.unwrap()
    }

    /// The same where the server may refuse.
    pub(crate) async fn try_command<T: FromRedisValue>(
        &self,
        name: &str,
        arguments: impl ToRedisArgs,
    ) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url()).unwrap();
        within("redis", async {
            let mut connection = patient(&client).await.unwrap();
            redis::cmd(name).arg(arguments).query_async(&mut connection).await
        })
        .await
    }

    /// Writes a session under the default key and format.
    pub(crate) async fn put_session(&self, id: &str, fields: &[(&str, &str)]) {
        let () = self.command("HSET", (format!("session:{id}"), fields)).await;
    }

    /// How often clients have called a command, by its name in lower case.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let info: String = self.command("INFO", "commandstats").await;
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// A connection for many commands.
    pub(crate) async fn connect(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        within("connection", patient(&client)).await.unwrap()
    }

    /// How often each command has been called, by its name in lower case.
    pub(crate) async fn all_calls(&self) -> BTreeMap<String, u64> {
        let info: String = self.command("INFO", "commandstats").await;
        let lines = info.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="));
        lines
            .map(|(name, rest)| (name.to_owned(), rest.split(',').next().unwrap().parse().unwrap()))
            .collect()
    }

    /// Writes its data to disk, where [`restart`](Self::restart) finds it.
    pub(crate) async fn save(&self) {
        let () = self.command("SAVE", &[] as &[&str]).await;
    }

    /// Kills it; data that was not [saved](Self::save) is lost.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Brings a stopped one back on the same port, with the data that was [saved](Self::save).
    pub(crate) async fn restart(&mut self) {
        self.stop();
        let process = start_on(self.address, self.directory.path(), self.options).await;
        self.process = Some(process.expect("the port is free again"));
    }

    /// Stops it from answering while its connections stay open.
    pub(crate) fn freeze(&self) {
        self.process.as_ref().unwrap().signal("STOP");
    }

    /// Ends a [`freeze`](Self::freeze).
    pub(crate) fn thaw(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }
}

/// A port nobody listens on, low enough for a cluster's second port 10,000 above it.
pub(super) fn free_address() -> SocketAddr {
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if address.port() < 55_535 {
            return address;
        }
    }
}

/// `None` when another process has taken the port meanwhile.
async fn start_on(address: SocketAddr, directory: &Path, options: &[&str]) -> Option<Process> {
    let port = address.port().to_string();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]).args(options);
    let process = Process::start(command.current_dir(directory));
    let listens = process.wait_for_line("redis-server", |line| match line {
        line if line.contains("Ready to accept connections") => Some(true),
        line if line.contains("Could not create server") || line.contains("Failed listening") => Some(false),
        _ => None,
    });
    listens.await.then_some(process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn sessions_are_hashes_under_the_default_key() {
        let redis = Redis::start().await;
        redis.put_session("abc", &[("user_id", "42")]).await;
        let user: String = redis.command("HGET", ("session:abc", "user_id")).await;
        assert_eq!(user, "42");
    }

    #[tokio::test]
    async fn it_comes_back_on_the_same_port_with_what_was_saved() {
        let mut redis = Redis::start().await;
        let url = redis.url();
        let () = redis.command("SET", ("saved", "v")).await;
        redis.save().await;
        let () = redis.command("SET", ("lost", "v")).await;
        redis.stop();
        assert!(std::net::TcpStream::connect(redis.address).is_err());
        redis.restart().await;
        assert_eq!(redis.url(), url);
        assert!(redis.command::<bool>("EXISTS", "saved").await);
        assert!(!redis.command::<bool>("EXISTS", "lost").await);
    }

    #[tokio::test]
    async fn frozen_it_accepts_but_does_not_answer() {
        let redis = Redis::start().await;
        redis.freeze();
        let command = redis.command::<String>("ECHO", "awake");
        tokio::pin!(command);
        assert!(tokio::time::timeout(Duration::from_millis(100), &mut command).await.is_err());
        redis.thaw();
        assert_eq!(command.await, "awake");
    }

    #[tokio::test]
    async fn a_taken_port_is_noticed() {
        let redis = Redis::start().await;
        assert!(start_on(redis.address, redis.directory.path(), &[]).await.is_none());
    }
}
