//! A relay that adds network latency on the way to a server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// Maximum bytes per piece.
const PIECE: usize = 64 * 1024;
/// Maximum pieces in flight per direction of a connection.
const UNDER_WAY: usize = 1024;

/// Forwards connections and delays every byte. Dropping it cuts them.
#[derive(Debug)]
pub(super) struct Relay {
    /// The listen address.
    pub(super) address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    /// A relay to `server` with a latency of `delay` in each direction.
    pub(super) async fn start(server: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(serve(listener, server, delay));
        Ok(Relay { address, _task: AbortOnDropHandle::new(task) })
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, delay: Duration) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // Errors of a connection are visible to its two ends.
        connections.spawn(async move { connection(client, server, delay).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(client: TcpStream, server: SocketAddr, delay: Duration) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(direction(from_client, to_server, delay), direction(from_server, to_client, delay))?;
    Ok(())
}

/// Forwards the data of one direction, each piece `delay` after its arrival, and then the end of the stream.
async fn direction(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    delay: Duration,
) -> io::Result<()> {
    let (pieces, mut due) = mpsc::channel::<(Instant, BytesMut)>(UNDER_WAY);
    let read = async move {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            let is_over = from.read_buf(&mut piece).await? == 0;
            if is_over || pieces.send((Instant::now() + delay, piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, piece)) = due.recv().await {
            sleep_until(at).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(|_: ((), ())| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_whole_in_order_and_later() {
        let (mut near, far) = tokio::io::duplex(1024);
        let (out, mut end) = tokio::io::duplex(1024);
        let began = Instant::now();
        tokio::spawn(direction(far, out, Duration::from_millis(4)));
        near.write_all(b"GET").await.unwrap();
        let mut head = [0; 3];
        end.read_exact(&mut head).await.unwrap();
        assert_eq!((&head, began.elapsed().as_millis()), (b"GET", 4));
        near.write_all(b" rest").await.unwrap();
        drop(near);
        let mut rest = String::new();
        end.read_to_string(&mut rest).await.unwrap();
        assert_eq!((rest.as_str(), began.elapsed().as_millis()), (" rest", 8));
    }
}
