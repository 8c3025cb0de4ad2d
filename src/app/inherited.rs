//! What a process inherits at its start besides arguments: sockets from its predecessor, or from the service
//! manager.

use std::io;
use std::os::fd::AsFd;

use listenfd::ListenFd;

use super::handover::{Channel, HandoverError, HandoverState, MAGIC, VERSION};
use super::sockets::InheritedSockets;
use crate::secret::Secret;

/// Inherited sockets and secrets. The default is empty.
#[derive(Default)]
pub struct Inherited {
    pub(super) sockets: InheritedSockets,
    /// The predecessor's key for sealing affinity cookies.
    pub(super) secret: Option<Secret<Vec<u8>>>,
    /// The predecessor's session tombstones.
    pub(super) ends: Vec<String>,
    pub(super) predecessor: Option<PreviousProcess>,
}

/// The process that this process replaces.
#[derive(Debug)]
pub(super) struct PreviousProcess(Channel);

impl Inherited {
    /// Takes over the sockets and state that the environment announces. Call it once per process. Blocks
    /// until a predecessor has sent its whole state.
    ///
    /// # Errors
    /// The announced sockets or state are missing, or a socket is not a TCP listener.
    pub fn take() -> Result<Self, HandoverError> {
        match std::env::var(MAGIC) {
            Ok(version) if version == VERSION => from_predecessor(),
            Ok(_) => Err(HandoverError::Unknown),
            Err(_) => Ok(from_service_manager()?),
        }
    }
}

impl PreviousProcess {
    /// Takes over: the predecessor stops accepting from now on. After an error the predecessor keeps serving,
    /// and this process must exit.
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
