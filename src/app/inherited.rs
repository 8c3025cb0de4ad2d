//! What the process was started with, besides arguments: sockets from the process that it takes over from, or
//! from the service manager.

use std::io;
use std::os::fd::AsFd;

use listenfd::ListenFd;

use super::handover::{Channel, HandoverError, HandoverState, MAGIC, VERSION};
use super::sockets::InheritedSockets;
use crate::secret::Secret;

/// Sockets and secrets that a process inherits. The default is nothing.
#[derive(Default)]
pub struct Inherited {
    pub(super) sockets: InheritedSockets,
    /// What the predecessor sealed clients' ties with.
    pub(super) secret: Option<Secret<Vec<u8>>>,
    /// The ends of sessions that the predecessor remembers.
    pub(super) ends: Vec<String>,
    pub(super) predecessor: Option<PreviousProcess>,
}

/// The process that this one takes over from.
#[derive(Debug)]
pub(super) struct PreviousProcess(Channel);

impl Inherited {
    /// Takes what the environment tells of; to be called once in a process. Blocks until a predecessor has handed
    /// everything over.
    ///
    /// # Errors
    /// What is told of is not there, or is no TCP listener.
    pub fn take() -> Result<Self, HandoverError> {
        match std::env::var(MAGIC) {
            Ok(version) if version == VERSION => from_predecessor(),
            Ok(_) => Err(HandoverError::Unknown),
            Err(_) => Ok(from_service_manager()?),
        }
    }
}

impl PreviousProcess {
    /// Takes over: from now on the predecessor accepts nobody. An error means that it goes on instead, and that
    /// this process must end.
    pub(super) fn take_over(&self) -> Result<(), HandoverError> {
        self.0.tell_ready()
    }
}

fn from_predecessor() -> Result<Inherited, HandoverError> {
    let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let HandoverState { groups, secret, ends } = channel.receive()?;
    let sockets = InheritedSockets { handed_over: groups, activated: Vec::new() };
    Ok(Inherited { sockets, secret, ends, predecessor: Some(PreviousProcess(channel)) })
}

/// Socket activation: sd_listen_fds(3).
fn from_service_manager() -> io::Result<Inherited> {
    let mut passed = ListenFd::from_env();
    let mut activated = Vec::new();
    for index in 0..passed.len() {
        activated.extend(passed.take_tcp_listener(index)?);
    }
    let sockets = InheritedSockets { handed_over: Vec::new(), activated };
    Ok(Inherited { sockets, ..Default::default() })
}
