//! Streams, uploads, HTTP/2 and TLS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use vestibule::lab::load::{LoadResult, TargetOptions};

use super::{load, load_with, run};
use crate::support::service::{Service, begin, chunk};
use crate::support::stub::Stub;
use crate::support::vestibule::write;

#[tokio::test]
async fn a_stream_tells_when_its_events_came() {
    let service = Service::start(async |_, wire| {
        begin(wire, "text/event-stream").await?;
        sleep(Duration::from_millis(100)).await;
        for event in ["event: ping\n\ndata: a", "\n\n", ": nothing\n\ndata: b\n\n"] {
            chunk(wire, event.as_bytes()).await?;
        }
        sleep(Duration::from_millis(50)).await;
        chunk(wire, b"data: c\r\n\r\n").await?;
        chunk(wire, b"").await
    });
    let tables =
        "[arrival]\nrate = 20\n[[action]]\nname = 'a'\nstream = true\npath = '/'\ncontains = 'data: c'";
    let result = run(load(tables, service.address())).await;
    assert_eq!((result.all.done, result.all.failed), (20, 0), "{:?}", result.failures);
    assert_eq!((result.first_token.count, result.token_gap.count), (20, 40));
    // It is never earlier than it was sent, to one part in a thousand.
    assert!(result.first_token.counts[0].0 >= 99.9 && result.token_gap.max >= 49.0, "{result:?}");
}

#[tokio::test]
async fn a_stream_without_an_event_has_failed() {
    let service = Service::telling(|_| ": nothing\n\n".to_owned());
    let tables = "[arrival]\nrate = 5\n[[action]]\nname = 'a'\nstream = true\npath = '/'";
    let result = run(load(tables, service.address())).await;
    assert_eq!(result.failures.into_iter().collect::<Vec<_>>(), [("unexpected body".to_owned(), 5)]);
}

#[tokio::test]
async fn uploads_arrive_with_every_byte() {
    let stub = Stub::start(&[]).await;
    let tables = "[arrival]\nrate = 5\n[[action]]\nname = 'a'\npath = '/v1/files/upload'\nupload = '300KiB'\n\
                  expect = [201]\nheaders = { Authorization = 'Bearer app-x' }";
    let result = run(load(tables, stub.address)).await;
    assert_eq!((result.all.done, result.all.failed), (5, 0), "{:?}", result.failures);
    let stats = stub.stats().await;
    assert_eq!((&stats["uploads"], &stats["upload_bytes"]), (&5.into(), &(5 * 300 * 1024).into()));
}

/// A server that tells the version it is spoken to in, and the header `Host` or what stands for it.
async fn server(tls: Option<ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Some(acceptor) = acceptor else { return serve(stream, true).await };
                if let Ok(stream) = acceptor.accept(stream).await {
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, is_http2).await;
                }
            });
        }
    });
    address
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_http2: bool) {
    let answer = service_fn(async |request: Request<Incoming>| {
        let named = request.uri().authority().is_some() == (request.version() == Version::HTTP_2);
        let cookies = request.headers().get_all("cookie").iter().count();
        let body = format!("{:?}, named {named}, {cookies} cookies", request.version());
        let answer =
            Response::builder().header("set-cookie", "a=1; Secure").body(Full::new(Bytes::from(body)));
        Ok::<_, Infallible>(answer.unwrap())
    });
    let io = TokioIo::new(stream);
    // A client that leaves is no error.
    let _ = match is_http2 {
        true => http2::Builder::new(TokioExecutor::new()).serve_connection(io, answer).await,
        false => http1::Builder::new().serve_connection(io, answer).await,
    };
}

/// One user's second and later answers hold the version; the first one has no cookie yet.
async fn ask(url: &str, options: &TargetOptions, version: &str) -> LoadResult {
    let tables = format!(
        "[users]\ncount = 1\n[arrival]\nrate = 10\n[[action]]\nname = 'a'\npath = '/'\n\
         contains = '{version}, named true, 1 cookies'"
    );
    run(load_with(&tables, url, options)).await
}

#[tokio::test]
async fn http2_is_spoken_without_asking_when_told_so() {
    let address = server(None).await;
    let options = TargetOptions { http2: true, ..TargetOptions::default() };
    let result = ask(&format!("http://{address}"), &options, "HTTP/2.0").await;
    assert_eq!((result.all.done, result.all.failed), (10, 1), "{:?}", result.failures);
}

#[tokio::test]
async fn over_tls_the_version_is_agreed_on_and_the_certificate_checked() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let ca = write(&pair.cert.pem());
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut tls = builder.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let url = format!("https://localhost:{}", server(Some(tls)).await.port());

    let ca = TargetOptions { ca: Some(ca.path().to_owned()), ..TargetOptions::default() };
    for (http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let result = ask(&url, &TargetOptions { http2, ..ca.clone() }, version).await;
        assert_eq!((result.all.done, result.all.failed), (10, 1), "{:?}", result.failures);
    }
    let anybody = TargetOptions { insecure: true, ..TargetOptions::default() };
    assert_eq!(ask(&url, &anybody, "HTTP/1.1").await.all.failed, 1);
    let stranger = load_with("[[action]]\nname = 'a'\npath = '/'", &url, &TargetOptions::default());
    let (progress, _) = tokio::sync::watch::channel(Default::default());
    let refused = stranger.run(progress, tokio_util::sync::CancellationToken::new()).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.starts_with(&format!("cannot connect to {url}: ")), "{refused}");
    assert!(refused.contains("certificate"), "{refused}");
}
