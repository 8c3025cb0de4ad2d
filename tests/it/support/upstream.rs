//! An instance that answers what the test tells it to, and remembers what it was asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::wire::{Framing, Head, Headers, Wire};
use super::within;

/// A request as it came in; `body` and `trailers` grow while it is read.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Which connection brought it, counted from 0.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Headers,
    /// Whether the body came to its proper end.
    pub(crate) complete: bool,
}

impl Request {
    fn new(connection: usize, head: Head) -> Self {
        let mut words = head.start_line.splitn(3, ' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        Self {
            connection,
            method: word(),
            target: word(),
            version: word(),
            headers: head.headers,
            body: Vec::new(),
            trailers: Headers::default(),
            complete: false,
        }
    }
}

/// What an upstream has seen so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Request>,
    /// Connections accepted.
    pub(crate) opened: usize,
    /// Connections that ended, from whichever side.
    pub(crate) closed: usize,
    /// Answers that were sent to their end.
    pub(crate) answered: usize,
}

/// Lets a waiting [`Reply`] go on, once per [`fire`](Signal::fire).
#[derive(Debug, Clone)]
pub(crate) struct Signal(Arc<Semaphore>);

impl Signal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    pub(crate) fn fire(&self) {
        self.0.add_permits(1);
    }

    async fn wait(&self) {
        self.0.acquire().await.unwrap().forget();
    }
}

#[derive(Debug, Clone)]
enum Step {
    ReadBody,
    Send(Vec<u8>),
    Fill(usize),
    SendBodyBack,
    Wait(Signal),
    Busy(Signal),
    Delay(Duration),
    Hang,
    StandStill,
    EchoBytes,
    Close,
    Reset,
}

/// An answer, step by step. The connection is kept afterwards unless a step ends it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply(Vec<Step>);

impl Reply {
    /// A whole answer of so many bytes, which are made as they are sent.
    pub(crate) fn large(bytes: usize) -> Self {
        let length = bytes.to_string();
        Self::after_body().head(200, &[("content-length", length.as_str())]).then(Step::Fill(bytes))
    }

    /// Nothing yet; not even the body of the request is read.
    pub(crate) fn early() -> Self {
        Self::default()
    }

    /// Reads the request's body, then goes on with the next steps.
    pub(crate) fn after_body() -> Self {
        Self(vec![Step::ReadBody])
    }

    /// A whole answer with a length.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self::with_headers(status, &[], body)
    }

    /// A whole answer with a length and further headers.
    pub(crate) fn with_headers(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let length = body.len().to_string();
        let headers = [headers, &[("content-length", length.as_str())]].concat();
        Self::after_body().head(status, &headers).raw(body)
    }

    /// The head of a chunked answer; [`chunk`](Self::chunk) and [`end`](Self::end) follow.
    pub(crate) fn chunked(status: u16, headers: &[(&str, &str)]) -> Self {
        Self::after_body().head(status, &[headers, &[("transfer-encoding", "chunked")]].concat())
    }

    /// The request's body sent back.
    pub(crate) fn body_back() -> Self {
        Self::after_body().then(Step::SendBodyBack)
    }

    /// Reads the request's body.
    pub(crate) fn body(self) -> Self {
        self.then(Step::ReadBody)
    }

    fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// All steps of another answer.
    pub(crate) fn then_all(mut self, other: Reply) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(crate) fn raw(self, bytes: impl AsRef<[u8]>) -> Self {
        self.then(Step::Send(bytes.as_ref().to_vec()))
    }

    pub(crate) fn head(self, status: u16, headers: &[(&str, &str)]) -> Self {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.raw(format!("HTTP/1.1 {status} Scripted\r\n{lines}\r\n"))
    }

    pub(crate) fn chunk(self, data: &str) -> Self {
        self.raw(format!("{:x}\r\n{data}\r\n", data.len()))
    }

    pub(crate) fn end(self) -> Self {
        self.end_with_trailers(&[])
    }

    pub(crate) fn end_with_trailers(self, trailers: &[(&str, &str)]) -> Self {
        let lines: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.raw(format!("0\r\n{lines}\r\n"))
    }

    pub(crate) fn wait(self, signal: &Signal) -> Self {
        self.then(Step::Wait(signal.clone()))
    }

    /// Waits without looking at the connection: whoever leaves meanwhile is not noticed.
    pub(crate) fn busy(self, signal: &Signal) -> Self {
        self.then(Step::Busy(signal.clone()))
    }

    pub(crate) fn delay(self, duration: Duration) -> Self {
        self.then(Step::Delay(duration))
    }

    /// Holds the connection open without another byte.
    pub(crate) fn hang(self) -> Self {
        self.then(Step::Hang)
    }

    /// Holds the connection open, and neither sends nor reads another byte.
    pub(crate) fn stand_still(self) -> Self {
        self.then(Step::StandStill)
    }

    /// Sends every further byte of the client back, as a tunnel does.
    pub(crate) fn echo_bytes(self) -> Self {
        self.then(Step::EchoBytes)
    }

    /// Ends the connection in order (FIN).
    pub(crate) fn close(self) -> Self {
        self.then(Step::Close)
    }

    /// Tears the connection down (RST).
    pub(crate) fn reset(self) -> Self {
        self.then(Step::Reset)
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running instance; dropping it stops it and cuts its connections.
pub(crate) struct Upstream {
    address: SocketAddr,
    handler: Arc<Handler>,
    seen: watch::Sender<Seen>,
    accepting: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts on a free port. `handler` is asked as soon as the head of a request is there.
    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut upstream =
            Self { address, handler: Arc::new(handler), seen: watch::Sender::default(), accepting: None };
        upstream.accept(listener);
        upstream
    }

    /// Starts one that gives the same answer to every request.
    pub(crate) async fn answering(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.borrow().requests.clone()
    }

    /// The only request so far.
    pub(crate) fn only_request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "not exactly one request: {requests:?}");
        requests.into_iter().next().unwrap()
    }

    pub(crate) fn connections_opened(&self) -> usize {
        self.seen.borrow().opened
    }

    pub(crate) fn connections_closed(&self) -> usize {
        self.seen.borrow().closed
    }

    /// Waits until `reached` holds for what was seen.
    pub(crate) async fn wait_until(&self, what: &str, reached: impl FnMut(&Seen) -> bool) {
        within(what, self.seen.subscribe().wait_for(reached)).await.unwrap();
    }

    /// Stops listening and cuts every connection.
    pub(crate) async fn stop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
        }
    }

    /// Listens again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.accept(TcpListener::bind(self.address).await.unwrap());
    }

    fn accept(&mut self, listener: TcpListener) {
        let (handler, seen) = (self.handler.clone(), self.seen.clone());
        self.accepting = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut index = 0;
                seen.send_modify(|seen| {
                    index = seen.opened;
                    seen.opened += 1;
                });
                let connection = Connection { index, wire: Wire::new(stream), seen: seen.clone() };
                connections.spawn(connection.serve(handler.clone()));
            }
        }));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(task) = &self.accepting {
            task.abort();
        }
    }
}

struct Connection {
    index: usize,
    wire: Wire<TcpStream>,
    seen: watch::Sender<Seen>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.seen.send_modify(|seen| seen.closed += 1);
    }
}

impl Connection {
    /// Answers until either side ends the connection; which error ended it is of no interest here.
    async fn serve(mut self, handler: Arc<Handler>) {
        while let Ok(Some(head)) = self.wire.head().await {
            let mut framing = Framing::of(&head.headers, Framing::Length(0));
            let request = Request::new(self.index, head);
            let reply = handler(&request);
            let mut position = 0;
            self.seen.send_modify(|seen| {
                position = seen.requests.len();
                seen.requests.push(request);
            });
            for step in reply.0 {
                if self.take(step, position, &mut framing).await.is_err() {
                    return;
                }
            }
            self.seen.send_modify(|seen| seen.answered += 1);
            if self.read_body(position, &mut framing).await.is_err() {
                return;
            }
        }
    }

    /// Any `Err` means that the connection is over.
    async fn take(&mut self, step: Step, position: usize, framing: &mut Framing) -> io::Result<()> {
        match step {
            Step::ReadBody => self.read_body(position, framing).await,
            Step::Send(bytes) => self.wire.stream.write_all(&bytes).await,
            Step::Fill(bytes) => {
                const PART: [u8; 16 * 1024] = [b'x'; 16 * 1024];
                let mut left = bytes;
                while left > 0 {
                    let part = PART.get(..left).unwrap_or(&PART);
                    self.wire.stream.write_all(part).await?;
                    left -= part.len();
                }
                Ok(())
            }
            Step::SendBodyBack => {
                let body = self.seen.borrow().requests[position].body.clone();
                let head = format!("HTTP/1.1 200 Scripted\r\ncontent-length: {}\r\n\r\n", body.len());
                self.wire.stream.write_all(&[head.as_bytes(), &body].concat()).await
            }
            Step::Wait(signal) => self.wire.until(signal.wait()).await,
            Step::Busy(signal) => {
                signal.wait().await;
                Ok(())
            }
            Step::Delay(duration) => self.wire.until(tokio::time::sleep(duration)).await,
            Step::Hang => self.wire.until(std::future::pending()).await,
            Step::StandStill => std::future::pending().await,
            Step::EchoBytes => loop {
                let bytes = self.wire.take_buffer();
                self.wire.stream.write_all(&bytes).await?;
                if self.wire.fill().await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            },
            Step::Close => Err(io::ErrorKind::ConnectionAborted.into()),
            Step::Reset => {
                self.wire.stream.set_zero_linger()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }

    async fn read_body(&mut self, position: usize, framing: &mut Framing) -> io::Result<()> {
        let mut trailers = Headers::default();
        if self.seen.borrow().requests[position].complete {
            return Ok(());
        }
        while let Some(piece) = self.wire.piece(framing, &mut trailers).await? {
            self.seen.send_modify(|seen| seen.requests[position].body.extend(piece));
        }
        self.seen.send_modify(|seen| {
            let request = &mut seen.requests[position];
            request.trailers = trailers;
            request.complete = true;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::client::{self, Client};

    #[tokio::test]
    async fn it_answers_what_it_was_told_and_remembers_the_request() {
        let upstream = Upstream::start(|request| Reply::text(201, &request.target)).await;
        let mut client = Client::connect(upstream.address()).await;
        let response = client.request("POST", "/a?b", &[("X-Odd", "1"), ("x-odd", "2")], b"hello").await;
        assert_eq!((response.status, response.text()), (201, "/a?b"));

        let request = upstream.only_request();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/a?b"));
        assert_eq!((request.version.as_str(), request.connection), ("HTTP/1.1", 0));
        assert_eq!(request.headers.all("x-odd"), ["1", "2"]);
        assert_eq!((request.body.as_slice(), request.complete), (&b"hello"[..], true));
    }

    #[tokio::test]
    async fn it_counts_connections() {
        let upstream = Upstream::answering(Reply::text(200, "")).await;
        let mut kept = Client::connect(upstream.address()).await;
        kept.request("GET", "/", &[], b"").await;
        kept.request("GET", "/", &[], b"").await;
        assert_eq!((upstream.connections_opened(), upstream.requests().len()), (1, 2));
        drop(kept);
        client::get(upstream.address(), "/").await;
        upstream.wait_until("both closed", |seen| seen.closed == 2).await;
        assert_eq!(upstream.connections_opened(), 2);
        assert_eq!(upstream.requests()[2].connection, 1);
    }

    #[tokio::test]
    async fn chunks_wait_for_their_signals_and_trailers_follow() {
        let signal = Signal::new();
        let reply = Reply::chunked(200, &[]).chunk("a").wait(&signal).chunk("b");
        let upstream = Upstream::answering(reply.end_with_trailers(&[("X-T", "1")])).await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        let mut response = client.start_response().await;
        assert_eq!(client.next_piece(&mut response).await.unwrap(), Some(b"a".to_vec()));
        signal.fire();
        assert_eq!(client.next_piece(&mut response).await.unwrap(), Some(b"b".to_vec()));
        assert_eq!(client.next_piece(&mut response).await.unwrap(), None);
        assert_eq!(response.trailers.get("x-t"), Some("1"));
    }

    #[tokio::test]
    async fn a_waiting_answer_notices_that_the_client_left() {
        let upstream = Upstream::answering(Reply::after_body().hang()).await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        upstream.wait_until("request", |seen| seen.requests.len() == 1).await;
        drop(client);
        upstream.wait_until("closed", |seen| seen.closed == 1).await;
    }

    #[tokio::test]
    async fn it_cuts_in_order_or_by_force() {
        let half = Reply::after_body().raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab");
        for (reply, kind) in [
            (half.clone().close(), io::ErrorKind::UnexpectedEof),
            (half.reset(), io::ErrorKind::ConnectionReset),
        ] {
            let upstream = Upstream::answering(reply).await;
            let mut client = Client::connect(upstream.address()).await;
            client.send("GET / HTTP/1.1\r\n\r\n").await;
            assert_eq!(client.try_response().await.unwrap_err().kind(), kind);
        }
    }

    #[tokio::test]
    async fn an_upgraded_connection_sends_every_byte_back() {
        let reply = Reply::early().head(101, &[("connection", "upgrade")]).echo_bytes();
        let upstream = Upstream::answering(reply).await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("GET / HTTP/1.1\r\nupgrade: x\r\n\r\nfirst").await;
        assert_eq!(client.start_response().await.status, 101);
        assert_eq!(client.read(5).await, b"first");
        client.send("second").await;
        assert_eq!(client.read(6).await, b"second");
    }

    #[tokio::test]
    async fn it_stops_and_comes_back_on_the_same_port() {
        let mut upstream = Upstream::answering(Reply::text(200, "back")).await;
        let mut kept = Client::connect(upstream.address()).await;
        kept.request("GET", "/", &[], b"").await;
        upstream.stop().await;
        kept.assert_closed().await;
        assert!(TcpStream::connect(upstream.address()).await.is_err());
        upstream.restart().await;
        assert_eq!(client::get(upstream.address(), "/").await.text(), "back");
    }

    #[tokio::test]
    async fn the_body_is_seen_while_it_arrives() {
        let upstream = Upstream::answering(Reply::body_back()).await;
        let mut client = Client::connect(upstream.address()).await;
        client.send("PUT / HTTP/1.1\r\ncontent-length: 4\r\n\r\nab").await;
        upstream.wait_until("half a body", |seen| seen.requests.iter().any(|r| r.body == b"ab")).await;
        assert!(!upstream.only_request().complete);
        client.send("cd").await;
        assert_eq!(client.response().await.text(), "abcd");
    }
}
