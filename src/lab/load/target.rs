//! The target of a load, and connecting to it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use http::Uri;
use http::uri::{Authority, Scheme};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::failure::{Failure, NoConnection};
use super::jar::Jar;
use super::stream::Stream;
use super::tls;

/// Connection options.
#[derive(Debug, Clone, Default)]
pub struct TargetOptions {
    /// Use HTTP/2: negotiated by ALPN with TLS, with prior knowledge otherwise.
    pub http2: bool,
    /// A PEM file of certificate authorities that replaces the system's.
    pub ca: Option<PathBuf>,
    /// Accept any certificate.
    pub insecure: bool,
}

/// Why a target cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error("{0:?} is not a base URL: write http://HOST[:PORT][/PATH] or https://…, without query")]
    Url(String),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// The target of a load.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) host: String,
    pub(super) port: u16,
    /// The prefix of every path; empty or without a trailing slash.
    pub(super) prefix: String,
    pub(super) http2: bool,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Parses `url` and reads the files of `options`. Blocks. For https the process must be prepared with
    /// [`install_crypto`](crate::transport::install_crypto).
    pub fn new(url: &str, options: &TargetOptions) -> Result<Target, TargetError> {
        let wrong = || TargetError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(wrong()) };
        let default_port = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong()),
        };
        let path = parts.path_and_query.as_ref();
        if authority.as_str().contains('@') || path.is_some_and(|path| path.query().is_some()) {
            return Err(wrong());
        }
        let tls = (scheme == Scheme::HTTPS).then(|| tls::config(options)).transpose()?;
        Ok(Target {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(default_port),
            prefix: path.map_or("", |path| path.path()).trim_end_matches('/').to_owned(),
            http2: options.http2,
            tls: tls.map(Arc::new),
            scheme,
            authority,
        })
    }

    /// Connects. Returns the stream, and whether it uses HTTP/2.
    pub(super) async fn connect(&self) -> Result<(Stream, bool), NoConnection> {
        let unreached = |error: io::Error| NoConnection::new(Failure::Connect, &error);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreached)?;
        stream.set_nodelay(true).map_err(unreached)?;
        let Some(tls) = &self.tls else { return Ok((Stream::Plain(stream), self.http2)) };
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|error| NoConnection::new(Failure::Handshake, &error))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await;
        let stream = stream.map_err(|error| NoConnection::new(Failure::Handshake, &error))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Stream::Tls(Box::new(stream)), http2))
    }

    /// An empty cookie jar for the target.
    pub(super) fn jar(&self) -> Jar {
        Jar::new(&self.host, self.tls.is_some())
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, TargetError> {
        Target::new(url, &TargetOptions::default())
    }

    #[test]
    fn a_target_is_a_host_and_perhaps_a_prefix() {
        for (url, host, port, prefix) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, ""),
            ("http://app.example/", "app.example", 80, ""),
            ("http://[::1]:81/shop/", "::1", 81, "/shop"),
        ] {
            let target = target(url).unwrap();
            assert_eq!((target.host.as_str(), target.port, target.prefix.as_str()), (host, port, prefix));
        }
        assert_eq!(target("http://a.example:81/b/").unwrap().url(), "http://a.example:81/b");
    }

    #[test]
    fn what_is_no_base_url_is_refused() {
        for url in ["", "a.example", "/a", "ftp://a", "http://u:p@a", "http://a/?q", "http://"] {
            assert!(matches!(target(url), Err(TargetError::Url(_))), "{url}");
        }
    }
}
