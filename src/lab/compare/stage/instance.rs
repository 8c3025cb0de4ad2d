//! One instance of the application, over all its restarts.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::process::{Process, Program};
use super::{PAUSE, StageError};
use crate::lab::compare::mode::SessionMode;
use crate::lab::compare::target::{Command, Stubs, Target};
use crate::lab::stub::scale_for;

/// Grace period for an instance to stop by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Additional connections for requests that are not the users', such as health checks.
const SPARE_SLOTS: u32 = 2;

/// An instance, running or not.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: String,
    /// Port 0 until a stub is started.
    pub(super) address: SocketAddr,
    origin: Origin,
    mode: SessionMode,
    /// Longest time until it accepts connections.
    patience: Duration,
    process: Option<Process>,
    lives: Vec<Life>,
}

/// How an instance is started.
#[derive(Debug)]
enum Origin {
    Stub {
        stubs: Stubs,
        directory: PathBuf,
    },
    /// By a command of the user.
    Command(Command),
    /// Externally.
    Elsewhere,
}

/// One life of a stub: from a start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::lab::compare) struct Life {
    /// The file with its session ledger.
    pub(in crate::lab::compare) ledger: PathBuf,
    /// When it ended. `None`: it is running.
    pub(in crate::lab::compare) ended: Option<Instant>,
}

impl Instance {
    /// All instances of `target`, none of them started.
    pub(super) fn all(target: &Target, mode: SessionMode, directory: &Path) -> Vec<Self> {
        let new = |name, address, origin| Instance {
            name,
            address,
            origin,
            mode,
            patience: target.patience(),
            process: None,
            lives: Vec::new(),
        };
        match target {
            Target::Stubs(stubs) => (1..=stubs.count)
                .map(|number| {
                    let origin = Origin::Stub { stubs: *stubs, directory: directory.to_owned() };
                    new(format!("api-{number}"), SocketAddr::from(([127, 0, 0, 1], 0)), origin)
                })
                .collect(),
            Target::Own(own) => own
                .instances
                .iter()
                .map(|instance| {
                    let command = Command::of(own, instance, mode.of_proxy());
                    let origin = command.map_or(Origin::Elsewhere, Origin::Command);
                    new(instance.name.clone(), instance.address, origin)
                })
                .collect(),
        }
    }

    pub(super) fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// Starts the instance, at its previous address if it had one, and waits until it accepts connections.
    pub(super) async fn start(&mut self) -> Result<(), StageError> {
        match &self.origin {
            Origin::Stub { stubs, directory } => {
                let ledger = directory.join(format!("{}.{}.ledger", self.name, self.lives.len() + 1));
                let program = stub(&self.name, self.address, self.mode, stubs, &ledger)?;
                let mut process = Process::start(&program).await?;
                self.address = process.told(|line| announced(line, "instance listening")).await?;
                self.process = Some(process);
                self.lives.push(Life { ledger, ended: None });
                Ok(())
            }
            Origin::Command(command) => {
                let program = Program {
                    name: self.name.clone(),
                    program: "/bin/sh".into(),
                    arguments: vec!["-c".into(), command.line.clone().into()],
                    environment: command.environment.clone(),
                };
                self.process = Some(Process::start(&program).await?);
                self.reached().await
            }
            Origin::Elsewhere => self.reached().await,
        }
    }

    /// Kills the instance. Everything in its memory is lost.
    pub(super) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
        self.end_life();
    }

    /// Stops the instance gracefully, as in a deployment.
    pub(super) async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.terminate(GRACE).await;
        }
        self.end_life();
    }

    fn end_life(&mut self) {
        if let Some(life) = self.lives.last_mut() {
            life.ended = Some(Instant::now());
        }
    }

    async fn reached(&self) -> Result<(), StageError> {
        let began = Instant::now();
        while TcpStream::connect(self.address).await.is_err() {
            match &self.process {
                Some(process) => process.check()?,
                None => return Err(StageError::Absent { name: self.name.clone() }),
            }
            if began.elapsed() > self.patience {
                let (name, output) = (self.name.clone(), String::new());
                return Err(StageError::Silent { name, output, waited: self.patience });
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

fn stub(
    name: &str,
    address: SocketAddr,
    mode: SessionMode,
    stubs: &Stubs,
    ledger: &Path,
) -> Result<Program, StageError> {
    let this = std::env::current_exe();
    let program = this.map_err(|source| StageError::Start { name: name.to_owned(), source })?;
    let store = if mode.is_shared() { "none" } else { "memory" };
    let (listen, places) = (address.to_string(), (stubs.slots + SPARE_SLOTS).to_string());
    let scale = stubs.answer.map_or(1.0, scale_for).to_string();
    let arguments = [
        ["--log-format", "json"].as_slice(),
        &["stub", "--listen", &listen, "--instance", name, "--session-store", store],
        &["--latency-scale", &scale, "--slots", &places, "--sessions-log"],
    ];
    let mut arguments: Vec<OsString> = arguments.concat().into_iter().map(Into::into).collect();
    arguments.push(ledger.into());
    if let Some(login) = stubs.login {
        arguments.extend(["--login-ms".into(), login.as_millis().to_string().into()]);
    }
    Ok(Program { name: name.to_owned(), program, arguments, environment: Vec::new() })
}

/// The address in a log line of vestibule with this message.
pub(super) fn announced(line: &str, message: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    (line.get("message")? == message).then(|| line.get("address")?.as_str()?.parse().ok())?
}
