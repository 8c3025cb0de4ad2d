//! Child processes that end with the test, and what they print.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use super::within;

/// A running program; dropping it kills it.
pub(crate) struct Process {
    child: Child,
    stdout: Arc<watch::Sender<Vec<String>>>,
    stderr: Arc<watch::Sender<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
}

impl Process {
    /// Starts `command` with its output captured line by line.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_reading(command, Stdio::null())
    }

    /// Like [`start`](Self::start), with this standard input.
    pub(crate) fn start_reading(command: &mut Command, input: Stdio) -> Self {
        let program = command.get_program().to_owned();
        let piped = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
        let ((stdout, out), (stderr, err)) = (lines(child.stdout.take()), lines(child.stderr.take()));
        Self { child, stdout, stderr, readers: [out, err] }
    }

    pub(crate) fn stdout(&self) -> Vec<String> {
        self.stdout.borrow().clone()
    }

    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.borrow().clone()
    }

    /// Waits for the first line of either output for which `find` has an answer.
    pub(crate) async fn wait_for_line<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let search = |output: &Vec<String>| output.iter().any(|line| find(line).is_some());
        let (mut stdout, mut stderr) = (self.stdout.subscribe(), self.stderr.subscribe());
        let lines = within(what, async {
            tokio::select! {
                Ok(lines) = stdout.wait_for(search) => lines.clone(),
                Ok(lines) = stderr.wait_for(search) => lines.clone(),
            }
        });
        lines.await.iter().find_map(|line| find(line)).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name without `SIG`, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    /// [`memory`] of this process.
    pub(crate) fn memory(&self, field: &str) -> usize {
        memory(self.id(), field)
    }

    /// Waits for the end of the process alone: what it started may go on writing to its output.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        within("end", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await; // std has no wait that a test can bound
            }
        })
        .await
    }

    /// Waits for the end of the process and of its output.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        within("exit", self.exited()).await
    }

    /// Likewise, for a program that may take this long.
    pub(crate) async fn exit_within(&mut self, limit: Duration) -> ExitStatus {
        let exited = tokio::time::timeout(limit, self.exited()).await.ok();
        exited.unwrap_or_else(|| panic!("still running after {limit:?}: {:?}", self.stderr()))
    }

    async fn exited(&mut self) -> ExitStatus {
        loop {
            let ended = self.child.try_wait().unwrap();
            if let (Some(status), true) = (ended, self.readers.iter().all(JoinHandle::is_finished)) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await; // std has no wait that a test can bound
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may fail only because the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name without `SIG`, such as `TERM`.
pub(crate) fn signal(id: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &id.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name} {id}: {status}");
}

/// A figure of `/proc/PID/status` that is given in kibibytes, such as `VmRSS` or `VmHWM`, in bytes.
pub(crate) fn memory(id: u32, field: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kibibytes.unwrap_or_else(|| panic!("no {field} in {status}")).parse::<usize>().unwrap() * 1024
}

/// The lines of an output, and the thread that reads them to its end.
fn lines(output: Option<impl Read + Send + 'static>) -> (Arc<watch::Sender<Vec<String>>>, JoinHandle<()>) {
    let (sender, output) = (Arc::new(watch::Sender::default()), output.unwrap());
    let shared = sender.clone();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            shared.send_modify(|lines: &mut Vec<String>| lines.push(line));
        }
    });
    (sender, reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str) -> Process {
        Process::start(Command::new("sh").args(["-c", script]))
    }

    #[tokio::test]
    async fn lines_of_both_outputs_and_the_exit_code_are_seen() {
        let mut process = shell("echo out; echo port 42 >&2; exit 3");
        let port = process.wait_for_line("port", |line| line.strip_prefix("port ").map(str::to_owned)).await;
        assert_eq!(port, "42");
        process.wait_for_line("out", |line| (line == "out").then_some(())).await;
        assert_eq!(process.exit().await.code(), Some(3));
        assert_eq!((process.stdout(), process.stderr()), (vec!["out".into()], vec!["port 42".into()]));
    }

    #[tokio::test]
    async fn memory_is_told_in_bytes() {
        let process = shell("echo ready; sleep 1; true");
        process.wait_for_line("ready", |line| (line == "ready").then_some(())).await;
        for field in ["VmRSS", "VmHWM"] {
            let bytes = process.memory(field);
            assert!((100_000..100_000_000).contains(&bytes), "{field}: {bytes}");
        }
    }

    #[tokio::test]
    async fn signals_arrive() {
        let mut process = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        process.wait_for_line("ready", |line| (line == "ready").then_some(())).await;
        process.signal("TERM");
        assert_eq!(process.exit().await.code(), Some(7));
        let mut process = shell("echo ready; exec sleep 60");
        process.wait_for_line("ready", |line| (line == "ready").then_some(())).await;
        process.signal("KILL");
        assert_eq!(process.exit().await.signal(), Some(9));
    }
}
