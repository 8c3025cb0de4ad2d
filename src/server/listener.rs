//! Listening sockets and the accept loop.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use super::{Server, connection};
use crate::backoff::Backoff;

/// Backlog of connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 4096;
/// Pause after a failed accept. The cause is nearly always a lack of file descriptors.
const ACCEPT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(500));

/// Binds `count` sockets to one address with `SO_REUSEPORT`, so that the kernel spreads connections over
/// them. With port 0 the system chooses one port for all.
///
/// Fails when another program listens on the address, even with `SO_REUSEPORT`.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<StdListener>> {
    let address = match address.port() {
        0 => return spread(bind_one(address, true)?, count),
        _ => address,
    };
    // With `SO_REUSEPORT` the bind would succeed beside another socket that sets it too. A first bind without
    // it detects any other listener.
    drop(bind_one(address, false)?);
    spread(bind_one(address, true)?, count)
}

/// Duplicates the handles in `held`, in turn, until there are `count`. Closing a duplicated handle loses no
/// queued connections, unlike closing an additional `SO_REUSEPORT` socket.
pub fn share(held: &mut Vec<StdListener>, count: usize) -> io::Result<()> {
    let more: io::Result<Vec<_>> =
        held.iter().cycle().take(count.saturating_sub(held.len())).map(StdListener::try_clone).collect();
    held.extend(more?);
    Ok(())
}

/// Binds one socket that shares its address with no other socket.
pub fn bind_exclusive(address: SocketAddr) -> io::Result<StdListener> {
    bind_one(address, false)
}

fn spread(first: StdListener, count: usize) -> io::Result<Vec<StdListener>> {
    let address = first.local_addr()?;
    let rest = (1..count).map(|_| bind_one(address, true));
    std::iter::once(Ok(first)).chain(rest).collect()
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

pub(super) async fn accept(server: Arc<Server>, listener: TcpListener) {
    let mut failures = 0;
    // A retired process stops accepting: the successor shares the queue and serves the connections in it.
    while !server.drain.is_retired() || server.drain.has_begun() {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = server.drain.retired() => {
                if server.drain.has_begun() { return } else { continue }
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                failures = 0;
                // At most one accepted client per listener waits here for a permit; others wait in the
                // kernel's backlog. If the permit were acquired before the accept, idle listeners would hold
                // permits that a busy one needs.
                let place = tokio::select! {
                    biased;
                    place = server.places.clone().acquire_owned() => place,
                    () = server.drain.begun() => return,
                };
                let Ok(place) = place else { return };
                start(&server, stream, peer, place);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_BACKOFF.delay(failures)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

fn start(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
    // Fails when the client has already disconnected. There is nothing to answer.
    let Ok(local) = stream.local_addr() else { return };
    let _ = stream.set_nodelay(true);
    server.drain.spawn(connection::serve(server.clone(), stream, (peer.ip(), local.port()), place));
}
