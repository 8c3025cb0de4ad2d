//! A client that sends what it is told, byte for byte, and reads answers strictly.

use std::io;
use std::net::SocketAddr;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::{Framing, Headers, Wire};
use super::within;

/// An answer; the body is what has been read of it.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Headers,
    framing: Framing,
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One connection. Every wait fails the test after [`DEADLINE`](super::DEADLINE).
#[derive(Debug)]
pub(crate) struct Client {
    wire: Wire<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { wire: Wire::new(stream) }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Like [`send`](Self::send), for a peer that may already have closed.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("send", self.wire.stream.write_all(bytes.as_ref())).await
    }

    /// Ends our half of the connection; answers can still come.
    pub(crate) async fn end(&mut self) {
        within("end", self.wire.stream.shutdown()).await.unwrap();
    }

    /// Sends a request, with `Host: localhost` when `headers` has none and a length when there is a body,
    /// and reads the whole answer.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send_request(method, target, headers, body).await;
        let mut response = self.start_response().await;
        if method == "HEAD" {
            response.framing = Framing::Length(0);
        }
        self.finish(&mut response).await.unwrap();
        response
    }

    /// The sending half of [`request`](Self::request).
    pub(crate) async fn send_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat()).await;
    }

    /// Reads one whole answer.
    pub(crate) async fn response(&mut self) -> Response {
        self.try_response().await.unwrap()
    }

    /// Like [`response`](Self::response); an answer that is cut short is an error.
    pub(crate) async fn try_response(&mut self) -> io::Result<Response> {
        let mut response = self.try_start_response().await?;
        self.finish(&mut response).await?;
        Ok(response)
    }

    /// Reads the head of an answer.
    pub(crate) async fn start_response(&mut self) -> Response {
        self.try_start_response().await.unwrap()
    }

    async fn try_start_response(&mut self) -> io::Result<Response> {
        let head = within("answer", self.wire.head()).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.start_line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status in {:?}", head.start_line));
        let framing = match status {
            100..=199 | 204 | 304 => Framing::Length(0),
            _ => Framing::of(&head.headers, Framing::UntilClose),
        };
        let (body, trailers) = (Vec::new(), Headers::default());
        Ok(Response { status, headers: head.headers, body, trailers, framing })
    }

    /// The next piece of the body (one chunk when it is chunked); `None` = its proper end.
    pub(crate) async fn next_piece(&mut self, response: &mut Response) -> io::Result<Option<Vec<u8>>> {
        let Response { framing, trailers, .. } = response;
        within("body", self.wire.piece(framing, trailers)).await
    }

    /// Reads the rest of the body into `response`.
    pub(crate) async fn finish(&mut self, response: &mut Response) -> io::Result<()> {
        while let Some(piece) = self.next_piece(response).await? {
            response.body.extend(piece);
        }
        Ok(())
    }

    /// Exactly `count` bytes, whatever they mean.
    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let (mut framing, mut bytes) = (Framing::Length(count), Vec::new());
        while let Some(piece) =
            within("bytes", self.wire.piece(&mut framing, &mut Headers::default())).await.unwrap()
        {
            bytes.extend(piece);
        }
        bytes
    }

    /// Everything until the peer ends the connection.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        // A reset ends it, too.
        while within("the end", self.wire.fill()).await.is_ok_and(|count| count > 0) {}
        self.wire.take_buffer()
    }

    /// Waits until the peer ends the connection; fails when another byte comes instead.
    pub(crate) async fn assert_closed(&mut self) {
        assert_eq!(self.wire.take_buffer(), b"");
        match within("close", self.wire.fill()).await {
            Ok(0) => {}
            Ok(_) => {
                panic!("bytes instead of the end: {:?}", String::from_utf8_lossy(&self.wire.take_buffer()))
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

/// One GET on its own connection.
pub(crate) async fn get(address: SocketAddr, target: &str) -> Response {
    get_with(address, target, &[]).await
}

/// One GET with headers on its own connection.
pub(crate) async fn get_with(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(address).await.request("GET", target, headers, b"").await
}
