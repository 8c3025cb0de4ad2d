//! An instance that runs the test's own code for every request, on a thread of its own. It remembers nothing
//! but how many connections are open, so it can bear what an [`Upstream`](super::upstream::Upstream) cannot.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread::{self, JoinHandle};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::LocalSet;

use super::wire::{Head, Wire};
use super::within;

/// A running instance; dropping it is its death.
pub(crate) struct Service {
    address: SocketAddr,
    open: watch::Receiver<usize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts on a free port. `answer` must read the body of a request that has one; its error ends the
    /// connection.
    pub(crate) fn start<A>(answer: A) -> Self
    where
        A: AsyncFn(&Head, &mut Wire<TcpStream>) -> io::Result<()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (count, open) = watch::channel(0);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                tokio::select! {
                    () = accept(listener, answer, count) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, open, stop: Some(stop), thread: Some(thread) }
    }

    /// Starts one that answers every request without a body with 200 and the text that `answer` makes.
    pub(crate) fn telling(answer: impl Fn(&Head) -> String + Send + 'static) -> Self {
        Self::start(async move |request, wire| send(wire, 200, &[], &answer(request)).await)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until this many connections are open.
    pub(crate) async fn wait_for_open(&self, count: usize) {
        let what = format!("{count} open connections");
        within(&what, self.open.clone().wait_for(|open| *open == count)).await.unwrap();
    }

    /// Stops listening and cuts every connection.
    pub(crate) fn kill(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

async fn accept<A>(listener: std::net::TcpListener, answer: A, count: watch::Sender<usize>)
where
    A: AsyncFn(&Head, &mut Wire<TcpStream>) -> io::Result<()> + 'static,
{
    let (listener, answer, count) =
        (TcpListener::from_std(listener).unwrap(), Rc::new(answer), Rc::new(count));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (answer, open) = (answer.clone(), Open::new(&count));
        tokio::task::spawn_local(async move {
            let mut wire = Wire::new(stream);
            while let Ok(Some(head)) = wire.head().await {
                if answer(&head, &mut wire).await.is_err() {
                    break;
                }
            }
            drop((wire, open));
        });
    }
}

/// Counts as an open connection until it is dropped.
struct Open(Rc<watch::Sender<usize>>);

impl Open {
    fn new(count: &Rc<watch::Sender<usize>>) -> Self {
        count.send_modify(|open| *open += 1);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

/// Writes a whole answer with a length.
pub(crate) async fn send(
    wire: &mut Wire<TcpStream>,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<()> {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let answer = format!("HTTP/1.1 {status} Told\r\n{lines}content-length: {}\r\n\r\n{body}", body.len());
    wire.stream.write_all(answer.as_bytes()).await
}

/// Writes the head of a chunked answer.
pub(crate) async fn begin(wire: &mut Wire<TcpStream>, content_type: &str) -> io::Result<()> {
    let head =
        format!("HTTP/1.1 200 Told\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n");
    wire.stream.write_all(head.as_bytes()).await
}

/// Writes one chunk; an empty one is the end of the answer.
pub(crate) async fn chunk(wire: &mut Wire<TcpStream>, data: &[u8]) -> io::Result<()> {
    let size = format!("{:x}\r\n", data.len());
    wire.stream.write_all(&[size.as_bytes(), data, b"\r\n"].concat()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::client::{self, Client};

    #[tokio::test]
    async fn it_answers_with_the_tests_own_code() {
        let service = Service::start(async |request, wire| {
            begin(wire, "text/plain").await?;
            chunk(wire, request.start_line.as_bytes()).await?;
            chunk(wire, b"").await
        });
        let mut client = Client::connect(service.address()).await;
        for target in ["/a", "/b"] {
            let response = client.request("GET", target, &[], b"").await;
            assert_eq!(response.text(), format!("GET {target} HTTP/1.1"));
        }
        service.wait_for_open(1).await;
        drop(client);
        service.wait_for_open(0).await;
    }

    #[tokio::test]
    async fn its_death_cuts_what_it_was_saying() {
        let mut service = Service::start(async |_, wire| {
            begin(wire, "text/plain").await?;
            wire.until(std::future::pending()).await
        });
        let mut client = Client::connect(service.address()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        let mut response = client.start_response().await;
        service.kill();
        let cut = client.finish(&mut response).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        assert!(TcpStream::connect(service.address()).await.is_err());
        let told = Service::telling(|head| head.start_line.clone());
        assert_eq!(client::get(told.address(), "/").await.text(), "GET / HTTP/1.1");
    }
}
