//! The proxy under test, in this process or as the program itself.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vestibule::app::{App, AppHandle, Outcome};

use super::client::{self, Client, Response};
use super::config::Config;
use super::process::{self, Process};
use super::{metrics, within};

/// The proxy in this process; dropping it lets it drain.
pub(crate) struct Vestibule {
    address: SocketAddr,
    admin: SocketAddr,
    pub(crate) handle: AppHandle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Outcome>,
}

impl Vestibule {
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_text(&config.toml()).await
    }

    /// With a whole configuration file.
    pub(crate) async fn start_text(config: &str) -> Self {
        let parsed =
            vestibule::config::parse(config, "test").unwrap_or_else(|error| panic!("{error}\n{config}"));
        let app = App::bind(parsed).unwrap();
        let (address, admin) = (app.addresses()[0], app.admin_address().unwrap());
        let handle = app.handle();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async {
            let stopped = async {
                let _ = stopped.await; // a dropped sender means the same
            };
            app.run(stopped).await.unwrap()
        });
        Self { address, admin, handle, stop, task }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.address).await
    }

    /// One GET on its own connection.
    pub(crate) async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        client::get_with(self.address, target, headers).await
    }

    /// One GET on the admin listener.
    pub(crate) async fn admin(&self, target: &str) -> Response {
        client::get(self.admin, target).await
    }

    /// The sum of the samples of a metric whose labels contain `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        metrics::read(self.admin, name, labels).await
    }

    /// Waits until [`metric`](Self::metric) has this value.
    pub(crate) async fn wait_for_metric(&self, name: &str, labels: &str, value: f64) {
        metrics::wait_for(self.admin, name, labels, value).await;
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(self) -> Outcome {
        self.stop.send(()).unwrap();
        within("stop", self.task).await.unwrap()
    }
}

/// The program as a child process.
pub(crate) struct Program {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    config: NamedTempFile,
}

/// A process that took over from a program; dropping it kills it.
pub(crate) struct Successor(pub(crate) u32);

impl Drop for Successor {
    fn drop(&mut self) {
        let id = self.0.to_string();
        // It may have ended already.
        let _ = Command::new("kill").args(["-s", "KILL", &id]).stderr(Stdio::null()).status();
    }
}

impl Program {
    /// Runs `vestibule run` with `config` and waits until it serves.
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_with(config, &[]).await
    }

    /// Like [`start`](Self::start), with further options.
    pub(crate) async fn start_with(config: Config, options: &[&str]) -> Self {
        Self::start_command(config, command().args(options)).await
    }

    /// Like [`start`](Self::start), with these variables in its environment.
    pub(crate) async fn start_in(config: Config, environment: &[(&str, &str)]) -> Self {
        Self::start_command(config, command().envs(environment.iter().copied())).await
    }

    /// Like [`start`](Self::start), by a command that has the program and its arguments appended.
    pub(crate) async fn start_by(config: Config, command: &mut Command) -> Self {
        Self::start_command(config, command).await
    }

    async fn start_command(config: Config, command: &mut Command) -> Self {
        let file = write(&config.toml());
        command.args(["--log-format", "json", "run", "-c"]).arg(file.path());
        let process = Process::start(command);
        let address = announced(&process, "listening").await;
        let admin = announced(&process, "admin listening").await;
        let program = Self { process, address, admin, config: file };
        program.wait_for_readiness(200).await;
        program
    }

    /// Puts another configuration into its file.
    pub(crate) fn configure(&self, config: &Config) {
        std::fs::write(self.config.path(), config.toml()).unwrap();
    }

    pub(crate) fn config_path(&self) -> &Path {
        self.config.path()
    }

    /// Tells `process`, the program or a successor of it, to let a new process take over, and waits until it has.
    /// `successors`: how many there were before.
    pub(crate) async fn upgrade(&self, process: u32, successors: usize) -> Successor {
        process::signal(process, "USR2");
        let lines = within("upgrade", async {
            loop {
                let lines = self.said("another process has taken over");
                if lines.len() > successors {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(5)).await; // lines are for reading, not for waiting
            }
        });
        Successor(lines.await[successors]["process"].as_u64().unwrap() as u32)
    }

    /// Tells the program to read its configuration again and waits until it has said how that went, in a line
    /// that begins so; that line.
    pub(crate) async fn reload(&self, result: &str) -> serde_json::Value {
        let before = self.said(result).len();
        self.process.signal("HUP");
        within(result, async {
            loop {
                if let Some(line) = self.said(result).into_iter().nth(before) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(5)).await; // lines are for reading, not for waiting
            }
        })
        .await
    }

    /// All log lines whose message begins so.
    pub(crate) fn said(&self, beginning: &str) -> Vec<serde_json::Value> {
        let lines = self.process.stderr();
        let lines = lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines
            .filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with(beginning)))
            .collect()
    }

    /// Waits until the cache of sessions is in step with the store.
    pub(crate) async fn wait_for_fresh_cache(&self) {
        metrics::wait_for(self.admin, "session_cache_fresh", "", 1.0).await;
    }

    /// Waits until `/readyz` answers with this status.
    pub(crate) async fn wait_for_readiness(&self, status: u16) {
        within("/readyz", async {
            while client::get(self.admin, "/readyz").await.status != status {
                tokio::time::sleep(Duration::from_millis(5)).await; // it is for asking, not for waiting
            }
        })
        .await;
    }
}

/// The address that the program says it listens on.
async fn announced(process: &Process, message: &str) -> SocketAddr {
    let address = process.wait_for_line(message, |line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line["message"] == message).then(|| line["address"].as_str()?.parse().ok())?
    });
    address.await
}

/// The program itself, without arguments: the build that `VESTIBULE_PROGRAM` names, or else the one that was
/// built with the tests.
pub(crate) fn command() -> Command {
    Command::new(std::env::var_os("VESTIBULE_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_vestibule").into()))
}

/// A temporary file with this text.
pub(crate) fn write(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}
