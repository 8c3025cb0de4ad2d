//! Starting the program again and letting it take over.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::handover::{Channel, HandoverError, MAGIC, VERSION};
use super::sockets::Sockets;
use crate::secret::Secret;

/// Why there is no new process. The one that was asked goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("this is process 1, whose end would be that of its container: start another one instead")]
    First,
    #[error("cannot start {}", program.display())]
    Start {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the new process ended ({0}) before it could take over; its own output tells why")]
    Ended(ExitStatus),
    #[error("the new process did not take over: {0}")]
    Handover(#[from] HandoverError),
    #[error("this process has been taken over from, or is ending")]
    Over,
}

/// One attempt. Dropping it without [`Attempt::finish`] leaves the new process without a predecessor, and it ends.
#[derive(Debug)]
pub(super) struct Attempt {
    child: Child,
    channel: Channel,
}

impl Attempt {
    /// Starts the program as this process was started: with the same name, looked up anew, and the same arguments.
    /// The new process has `timeout` for each step until it is ready. Blocks until it is started.
    pub(super) fn start(timeout: Duration) -> Result<Self, UpgradeError> {
        if std::process::id() == 1 {
            return Err(UpgradeError::First);
        }
        let (channel, theirs) = Channel::pair(timeout)?;
        let mut arguments = env::args_os();
        let program = PathBuf::from(arguments.next().unwrap_or_default());
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::from(theirs)).env(MAGIC, VERSION);
        // These are for the process that the service manager started.
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        match command.spawn() {
            Ok(child) => Ok(Attempt { child, channel }),
            Err(source) => Err(UpgradeError::Start { program, source }),
        }
    }

    /// A handle whose [`Channel::close`] makes the attempt fail, unless it has succeeded.
    pub(super) fn channel(&self) -> io::Result<Channel> {
        self.channel.try_clone()
    }

    /// Hands everything over and waits until the new process takes over; its process id. After an error it is
    /// gone. Blocks.
    pub(super) fn finish(
        mut self,
        sockets: &Arc<Sockets>,
        secret: &Secret<Vec<u8>>,
        ends: &[String],
    ) -> Result<u32, UpgradeError> {
        let sent = self.channel.send(sockets.groups(), secret, ends);
        match sent.and_then(|()| self.channel.await_ready()) {
            Ok(()) => Ok(self.child.id()),
            Err(error) => Err(self.give_up(error)),
        }
    }

    fn give_up(&mut self, error: HandoverError) -> UpgradeError {
        self.channel.close();
        // One that closed the connection is about to end by itself, in its own way.
        if !matches!(error, HandoverError::Closed) {
            // It may have ended meanwhile.
            let _ = self.child.kill();
        }
        match (self.child.wait(), error) {
            (Ok(status), HandoverError::Closed) => UpgradeError::Ended(status),
            (_, error) => UpgradeError::Handover(error),
        }
    }
}
