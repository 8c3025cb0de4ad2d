//! Starts the program again and hands over to the new process.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::handover::{Channel, HandoverError, MAGIC, VERSION};
use super::sockets::Sockets;
use crate::secret::Secret;

/// Why the upgrade failed. The current process continues unchanged.
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

/// One upgrade attempt. Dropping it without [`Attempt::finish`] closes the channel, and the new process then
/// exits.
#[derive(Debug)]
pub(super) struct Attempt {
    child: Child,
    channel: Channel,
}

impl Attempt {
    /// Starts the program with the same name and arguments as this process. The name is looked up again, so a
    /// replaced binary is used. The new process has `timeout` for each step until it is ready. Blocks until
    /// the process is started.
    ///
    /// # Errors
    /// [`UpgradeError::First`] when this process is process 1: its exit would end the container.
    pub(super) fn start(timeout: Duration) -> Result<Self, UpgradeError> {
        if std::process::id() == 1 {
            return Err(UpgradeError::First);
        }
        let (channel, theirs) = Channel::pair(timeout)?;
        let mut arguments = env::args_os();
        let program = PathBuf::from(arguments.next().unwrap_or_default());
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::from(theirs)).env(MAGIC, VERSION);
        // These variables name the process that the service manager started, not its child.
        for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        match command.spawn() {
            Ok(child) => Ok(Attempt { child, channel }),
            Err(source) => Err(UpgradeError::Start { program, source }),
        }
    }

    /// A second handle to the channel. [`Channel::close`] on it makes the attempt fail, unless it has already
    /// succeeded.
    pub(super) fn channel(&self) -> io::Result<Channel> {
        self.channel.try_clone()
    }

    /// Hands everything over and waits until the new process takes over. Returns its process id. After an
    /// error the new process has ended. Blocks.
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
        // A process that closed the channel is already exiting; killing it would hide its exit status.
        if !matches!(error, HandoverError::Closed) {
            // Killing fails when the process has ended meanwhile.
            let _ = self.child.kill();
        }
        match (self.child.wait(), error) {
            (Ok(status), HandoverError::Closed) => UpgradeError::Ended(status),
            (_, error) => UpgradeError::Handover(error),
        }
    }
}
