//! Accepting clients: listeners, workers, connections.

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

/// What all connections of one worker share.
#[derive(Debug)]
pub struct Server {
    pub service: Arc<Service>,
    /// Counts every client connection, idle ones included.
    pub drain: Drain,
    /// One permit per open connection, over all workers.
    pub places: Arc<Semaphore>,
}

impl Server {
    /// Accepts clients on `listener` until the drain begins and the backlog is empty, or at once no more when it
    /// retires.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        listener::accept(self, listener).await;
    }
}
