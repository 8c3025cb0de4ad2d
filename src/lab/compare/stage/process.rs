//! Programs that the comparison starts, each under a guard.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::StageError;
use super::guard::{STARTED, TERMINATE};

/// Longest wait for an expected line of output.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of a program's output that are kept.
const KEPT: usize = 200;
/// Lines of output in an error message.
const SHOWN: usize = 8;

/// How to start a program.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The name in messages.
    pub(super) name: String,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(String, String)>,
}

/// A running program. Dropping it kills the program and waits for its end.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    guard: Child,
    /// `None`: it is being killed.
    input: Option<ChildStdin>,
    id: u32,
    output: watch::Receiver<Output>,
}

/// The output of a program.
#[derive(Debug, Default)]
struct Output {
    lines: VecDeque<String>,
    /// How many of the guard's output streams, which the program shares, have ended.
    ended: usize,
}

impl Output {
    const STREAMS: usize = 2;

    fn push(&mut self, line: String) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn has_ended(&self) -> bool {
        self.ended == Self::STREAMS
    }
}

impl Process {
    /// Starts a program under a guard, which is this executable.
    pub(super) async fn start(program: &Program) -> Result<Self, StageError> {
        let failed = |source| StageError::Start { name: program.name.clone(), source };
        let this = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(this);
        command.arg("guard").arg("--").arg(&program.program).args(&program.arguments);
        command.envs(program.environment.iter().map(|(name, value)| (name, value)));
        // In its own process group, so that the terminal's Ctrl-C reaches only the comparison. The guard ends
        // when its input ends.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut guard = command.spawn().map_err(failed)?;
        let (sender, output) = watch::channel(Output::default());
        let sender = Arc::new(sender);
        collect(guard.stdout.take(), &sender);
        collect(guard.stderr.take(), &sender);
        let input = guard.stdin.take();
        let mut process = Process { name: program.name.clone(), guard, input, id: 0, output };
        process.id = process.told(|line| line.strip_prefix(STARTED)?.parse().ok()).await?;
        Ok(process)
    }

    /// The process id of the program itself.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Waits for the first line for which `find` returns a value.
    pub(super) async fn told<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T, StageError> {
        let found = |output: &Output| output.lines.iter().find_map(|line| find(line));
        let waited = timeout(PATIENCE, async {
            let output = self.output.wait_for(|output| found(output).is_some() || output.has_ended()).await;
            output.ok().and_then(|output| found(&output))
        });
        match waited.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(StageError::Ended { name: self.name.clone(), output: self.last_words() }),
            Err(_) => {
                let (name, output) = (self.name.clone(), self.last_words());
                Err(StageError::Silent { name, output, waited: PATIENCE })
            }
        }
    }

    /// Returns an error when the program has ended.
    pub(super) fn check(&self) -> Result<(), StageError> {
        match self.output.borrow().has_ended() {
            false => Ok(()),
            true => Err(StageError::Ended { name: self.name.clone(), output: self.last_words() }),
        }
    }

    /// Kills the program with everything that it has started. Completes when its port is free.
    pub(super) async fn kill(mut self) {
        self.input = None;
        self.ended().await;
    }

    /// Terminates the program gracefully within `patience`, otherwise kills it. Completes when it has ended.
    pub(super) async fn terminate(mut self, patience: Duration) {
        let asked = self.input.as_mut().is_some_and(|input| writeln!(input, "{TERMINATE}").is_ok());
        if asked && timeout(patience, self.ended()).await.is_ok() {
            return;
        }
        self.kill().await;
    }

    /// The guard's output ends with the guard, which ends after the program.
    async fn ended(&mut self) {
        let _ = self.output.wait_for(Output::has_ended).await;
    }

    fn last_words(&self) -> String {
        let output = self.output.borrow();
        let skipped = output.lines.len().saturating_sub(SHOWN);
        output.lines.iter().skip(skipped).fold(String::new(), |text, line| text + "\n  " + line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        // The guard kills the program and ends at once.
        let _ = self.guard.wait();
    }
}

/// Reads one output stream to its end in a separate thread.
fn collect(output: Option<impl Read + Send + 'static>, sender: &Arc<watch::Sender<Output>>) {
    let sender = Arc::clone(sender);
    thread::spawn(move || {
        if let Some(output) = output {
            let lines = BufReader::new(output).split(b'\n').map_while(io::Result::ok);
            lines.for_each(|line| {
                sender.send_modify(|output| output.push(String::from_utf8_lossy(&line).into_owned()));
            });
        }
        sender.send_modify(|output| output.ended += 1);
    });
}
