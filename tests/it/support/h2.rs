//! A small HTTP/2 client with prior knowledge (no TLS, no upgrade).

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::within;

/// One HTTP/2 connection; cloning it shares the connection.
#[derive(Clone)]
pub(crate) struct H2Client {
    sender: SendRequest<Full<Bytes>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct H2Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl H2Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        let (sender, connection) =
            within("handshake", handshake(TokioExecutor::new(), TokioIo::new(stream))).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends `request`, whose URI is absolute (`http://host/path`), and reads the head of the answer.
    pub(crate) async fn begin(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        within("readiness", self.sender.ready()).await?;
        within("answer", self.sender.send_request(request)).await
    }

    /// Likewise, and reads the whole answer.
    pub(crate) async fn request(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<H2Response> {
        let (head, body) = self.begin(request).await?.into_parts();
        let body = within("body", body.collect()).await?.to_bytes();
        Ok(H2Response { status: head.status, headers: head.headers, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;

    #[tokio::test]
    async fn it_speaks_http2_without_being_asked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = service_fn(async |request: Request<Incoming>| {
                let body = format!("{:?} {}", request.version(), request.uri());
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(body))))
            });
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await
        });
        let mut client = H2Client::connect(address).await;
        let request = Request::get("http://host.example/a").body(Full::default()).unwrap();
        let response = client.request(request).await.unwrap();
        assert_eq!(response.status, StatusCode::OK);
        assert_eq!(response.body, "HTTP/2.0 http://host.example/a");
        assert!(response.headers.contains_key("content-length"));
    }
}
