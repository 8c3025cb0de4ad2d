//! A WebSocket server that sends every message back, and a client for it.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::within;

/// Starts an echo server that lives as long as the test's runtime.
pub(crate) async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(echo(stream));
        }
    });
    address
}

/// Ends when the client does, in whichever way.
async fn echo(stream: TcpStream) -> tokio_tungstenite::tungstenite::Result<()> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await.transpose()? {
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Opens a WebSocket through `address`.
pub(crate) async fn connect(address: SocketAddr, target: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let handshake = client_async(format!("ws://{address}{target}"), stream);
    within("handshake", handshake).await.unwrap().0
}

/// Sends `text` and returns the next message.
pub(crate) async fn exchange(socket: &mut WebSocketStream<TcpStream>, text: &str) -> Message {
    within("send", socket.send(Message::text(text))).await.unwrap();
    within("message", socket.next()).await.unwrap().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_come_back() {
        let mut socket = connect(echo_server().await, "/any").await;
        assert_eq!(exchange(&mut socket, "one").await, Message::text("one"));
        assert_eq!(exchange(&mut socket, "two").await, Message::text("two"));
    }
}
