//! The client side of the proxy: listeners, the accept loop and client connections.

mod chunks;
mod connection;
mod frames;
mod http1;
mod http1_io;
mod http2;
mod http2_io;
mod io;
mod listener;
mod read_buffer;
mod reader;
mod request_framing;
mod streams;
mod timer;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::drain::Drain;
use crate::proxy::Service;

pub use listener::{bind, bind_exclusive, share};

/// State that all connections of one worker share.
#[derive(Debug)]
pub struct Server {
    pub service: Arc<Service>,
    /// Tracks every client connection, including idle ones.
    pub drain: Drain,
    /// One permit per open connection, over all workers.
    pub places: Arc<Semaphore>,
}

impl Server {
    /// Accepts clients on `listener` until the drain begins and the backlog is empty. When the process
    /// retires without a drain, it stops accepting at once.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        listener::accept(self, listener).await;
    }
}
