//! The handover of an upgrade: the old process passes the listening sockets, the secret that seals affinity
//! cookies, and the tombstones of sessions to its successor.
//!
//! The two processes are connected by a Unix socket pair that preserves message boundaries
//! (`SOCK_SEQPACKET`). One end is the successor's standard input. Listening sockets are passed as
//! `SCM_RIGHTS` (unix(7)), so both processes share the accept queues for a while and no client is refused.
//!
//! Protocol: the predecessor sends all its state and then [`END`]. The successor sends [`READY`] when no step
//! can fail any more, and accepts from then on.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{AddrParseError, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown,
    socketpair,
};

use super::sockets::{Group, Role};
use crate::secret::Secret;

/// Environment variable of a successor. Its value is the version of this protocol.
pub(super) const MAGIC: &str = "VESTIBULE_HANDOVER";
pub(super) const VERSION: &str = "1";

/// Sockets per message. The kernel accepts up to 253 (`SCM_MAX_FD`).
const MOST_SOCKETS: usize = 200;
/// Longest message in bytes.
const MOST_BYTES: usize = 4096;

const SECRET: &[u8] = b"secret ";
/// Prefix of a message with session tombstones, one per line.
const ENDS: &[u8] = b"ends ";
const CLIENTS: &[u8] = b"clients ";
const OPERATOR: &[u8] = b"operator ";
const END: &[u8] = b"end";
const READY: &[u8] = b"ready";

/// Why a handover failed.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("the connection between the processes failed")]
    Io(#[from] io::Error),
    #[error("the other process closed the connection")]
    Closed,
    #[error("it did not answer in time")]
    TooLate,
    #[error("the other process says something unknown; its version may be too far from this one's")]
    Unknown,
}

impl From<rustix::io::Errno> for HandoverError {
    fn from(errno: rustix::io::Errno) -> Self {
        match errno {
            rustix::io::Errno::AGAIN => HandoverError::TooLate,
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => HandoverError::Closed,
            errno => HandoverError::Io(errno.into()),
        }
    }
}

impl From<AddrParseError> for HandoverError {
    fn from(_: AddrParseError) -> Self {
        HandoverError::Unknown
    }
}

/// The state that is handed over.
#[derive(Default)]
pub(super) struct HandoverState {
    pub(super) groups: Vec<Group>,
    pub(super) secret: Option<Secret<Vec<u8>>>,
    pub(super) ends: Vec<String>,
}

/// One end of the socket pair. All calls block.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    pub(super) fn new(end: OwnedFd) -> Self {
        Channel(end)
    }

    /// Creates both ends. Every call on them fails after `timeout`, which must be greater than zero.
    pub(super) fn pair(timeout: Duration) -> Result<(Channel, OwnedFd), HandoverError> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        for end in [&ours, &theirs] {
            set_socket_timeout(end, Timeout::Recv, Some(timeout))?;
            set_socket_timeout(end, Timeout::Send, Some(timeout))?;
        }
        Ok((Channel(ours), theirs))
    }

    /// Another handle to the same end.
    pub(super) fn try_clone(&self) -> io::Result<Channel> {
        self.0.try_clone().map(Channel)
    }

    /// Shuts the connection down, for all handles to this end.
    pub(super) fn close(&self) {
        // It fails only when the peer has already closed the connection.
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    /// Sends the whole state.
    pub(super) fn send(
        &self,
        groups: &[Group],
        secret: &Secret<Vec<u8>>,
        ends: &[String],
    ) -> Result<(), HandoverError> {
        self.send_message(&[SECRET, secret.expose()].concat(), &[])?;
        for text in packed(ends) {
            self.send_message(&text, &[])?;
        }
        for group in groups {
            let role = match group.role {
                Role::Clients => CLIENTS,
                Role::Operator => OPERATOR,
            };
            let text = [role, group.address.to_string().as_bytes()].concat();
            for sockets in group.sockets.chunks(MOST_SOCKETS) {
                self.send_message(&text, &sockets.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
            }
        }
        self.send_message(END, &[])
    }

    /// Receives the whole state, up to [`END`].
    pub(super) fn receive(&self) -> Result<HandoverState, HandoverError> {
        let mut state = HandoverState::default();
        loop {
            let (text, sockets) = self.receive_message(RecvFlags::CMSG_CLOEXEC)?;
            if text == END {
                return Ok(state);
            } else if let Some(secret) = text.strip_prefix(SECRET) {
                state.secret = Some(Secret::new(secret.to_vec()));
            } else if let Some(ends) = text.strip_prefix(ENDS) {
                let ends = std::str::from_utf8(ends).map_err(|_| HandoverError::Unknown)?;
                state.ends.extend(ends.lines().map(str::to_owned));
            } else if let Some(address) = text.strip_prefix(CLIENTS) {
                state.add(Role::Clients, address, sockets)?;
            } else if let Some(address) = text.strip_prefix(OPERATOR) {
                state.add(Role::Operator, address, sockets)?;
            } else {
                return Err(HandoverError::Unknown);
            }
        }
    }

    /// Notifies the predecessor that this process takes over. After an error the predecessor keeps serving,
    /// and this process must not accept connections.
    pub(super) fn tell_ready(&self) -> Result<(), HandoverError> {
        self.send_message(READY, &[])
    }

    /// Waits until the successor takes over. After an error it never does: at the timeout the read side is
    /// shut down, so that a later [`READY`] fails in the successor's send. A message already received before
    /// the shutdown still counts.
    pub(super) fn await_ready(&self) -> Result<(), HandoverError> {
        let heard = match self.receive_message(RecvFlags::CMSG_CLOEXEC) {
            Err(HandoverError::TooLate) => {
                shutdown(&self.0, Shutdown::Read)?;
                self.receive_message(RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT).map_err(|error| {
                    match error {
                        HandoverError::Closed => HandoverError::TooLate,
                        error => error,
                    }
                })
            }
            heard => heard,
        };
        if heard?.0 == READY { Ok(()) } else { Err(HandoverError::Unknown) }
    }

    fn send_message(&self, text: &[u8], sockets: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
            return Err(HandoverError::Unknown);
        }
        sendmsg(&self.0, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn receive_message(&self, flags: RecvFlags) -> Result<(Vec<u8>, Vec<OwnedFd>), HandoverError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; MOST_BYTES];
        let heard = recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
        if heard.bytes == 0 {
            return Err(HandoverError::Closed);
        }
        text.truncate(heard.bytes);
        let mut sockets = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                sockets.extend(more);
            }
        }
        Ok((text, sockets))
    }
}

/// Packs `ends` into as few messages as possible. An entry that does not fit into one message is dropped.
fn packed(ends: &[String]) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for end in ends.iter().filter(|end| ENDS.len() + end.len() < MOST_BYTES) {
        match messages.last_mut().filter(|message| message.len() + end.len() < MOST_BYTES) {
            Some(message) => message.extend_from_slice(end.as_bytes()),
            None => messages.push([ENDS, end.as_bytes()].concat()),
        }
        messages.last_mut().into_iter().for_each(|message| message.push(b'\n'));
    }
    messages
}

impl HandoverState {
    fn add(&mut self, role: Role, address: &[u8], sockets: Vec<OwnedFd>) -> Result<(), HandoverError> {
        let address: SocketAddr =
            std::str::from_utf8(address).map_err(|_| HandoverError::Unknown)?.parse()?;
        let sockets = sockets.into_iter().map(TcpListener::from);
        // Continue the previous group: its address matches, and a multiple of [`MOST_SOCKETS`] means that its
        // last message was full.
        let more_of = self.groups.last_mut().filter(|group| {
            group.role == role && group.address == address && group.sockets.len() % MOST_SOCKETS == 0
        });
        match more_of {
            Some(group) => group.sockets.extend(sockets),
            None => self.groups.push(Group { role, address, sockets: sockets.collect() }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server;

    const TIME: Duration = Duration::from_secs(5);

    fn pair(timeout: Duration) -> (Channel, Channel) {
        let (ours, theirs) = Channel::pair(timeout).unwrap();
        (ours, Channel::new(theirs))
    }

    fn group(role: Role, count: usize) -> Group {
        let address = ([127, 0, 0, 1], 0).into();
        let mut sockets = server::bind(address, 1).unwrap();
        server::share(&mut sockets, count).unwrap();
        Group { role, address, sockets }
    }

    #[test]
    fn what_is_sent_arrives_whole_and_in_order() {
        let groups =
            [group(Role::Clients, MOST_SOCKETS + 50), group(Role::Clients, 2), group(Role::Operator, 1)];
        let secret = Secret::new(vec![7; 32]);
        let ends: Vec<String> = (0..1000).map(|number| format!("5000 revoked s{number}")).collect();
        let (old, new) = pair(TIME);
        let state = std::thread::scope(|scope| {
            let receiving = scope.spawn(|| new.receive().unwrap());
            old.send(&groups, &secret, &ends).unwrap();
            receiving.join().unwrap()
        });
        assert_eq!(state.secret, Some(secret));
        assert_eq!(state.ends, ends);
        assert_eq!(state.groups.len(), groups.len());
        for (sent, received) in groups.iter().zip(&state.groups) {
            assert_eq!((received.role, received.address), (sent.role, sent.address));
            assert_eq!(received.sockets.len(), sent.sockets.len());
            let at = |group: &Group| group.sockets[0].local_addr().unwrap();
            assert_eq!(at(received), at(sent));
        }
    }

    #[test]
    fn golden_other_versions_say_the_same_bytes() {
        assert_eq!((MAGIC, VERSION), ("VESTIBULE_HANDOVER", "1"));
        let (old, new) = pair(TIME);
        let groups = [group(Role::Clients, 2), group(Role::Operator, 1)];
        let ends = ["5000 revoked s1".to_owned(), "60000 replaced s2".to_owned()];
        old.send(&groups, &Secret::new(b"\0secret\xff".to_vec()), &ends).unwrap();
        for (expected, sockets) in [
            (&b"secret \0secret\xff"[..], 0),
            (b"ends 5000 revoked s1\n60000 replaced s2\n", 0),
            (b"clients 127.0.0.1:0", 2),
            (b"operator 127.0.0.1:0", 1),
            (b"end", 0),
        ] {
            let (text, handed) = new.receive_message(RecvFlags::CMSG_CLOEXEC).unwrap();
            assert_eq!((text.as_slice(), handed.len()), (expected, sockets));
        }
        new.tell_ready().unwrap();
        assert_eq!(old.receive_message(RecvFlags::CMSG_CLOEXEC).unwrap().0, b"ready");
    }

    #[test]
    fn a_successor_that_is_ready_too_late_is_told_so() {
        let (old, new) = pair(Duration::from_millis(20));
        assert!(matches!(old.await_ready(), Err(HandoverError::TooLate)));
        assert!(matches!(new.tell_ready(), Err(HandoverError::Closed)));
    }

    #[test]
    fn a_successor_that_was_ready_in_time_counts() {
        let (old, new) = pair(TIME);
        new.tell_ready().unwrap();
        old.await_ready().unwrap();
    }

    #[test]
    fn one_that_ends_is_noticed_at_once() {
        let (old, new) = pair(TIME);
        drop(new);
        assert!(matches!(old.await_ready(), Err(HandoverError::Closed)));
        let (old, new) = pair(TIME);
        old.try_clone().unwrap().close();
        assert!(matches!(old.await_ready(), Err(HandoverError::Closed)));
        assert!(matches!(new.receive(), Err(HandoverError::Closed)));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [&b"x"[..], b"clients nowhere", b"clients \xff"] {
            let (old, new) = pair(TIME);
            old.send_message(text, &[]).unwrap();
            assert!(matches!(new.receive(), Err(HandoverError::Unknown)), "{text:?}");
        }
    }
}
