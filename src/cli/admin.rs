//! A client for the admin API of a running vestibule.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{self, Admin, Config};
use crate::secret::Secret;

const TOKEN_VARIABLE: &str = "VESTIBULE_ADMIN_TOKEN";
/// Timeout of a whole call.
const DEADLINE: Duration = Duration::from_secs(30);
/// Maximum bytes of a response.
const MAX_ANSWER: usize = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    /// Address of the admin listener; default: that of -c FILE, or 127.0.0.1:9901
    #[arg(long, value_name = "IP:PORT")]
    admin: Option<SocketAddr>,
    /// Where the token of the admin API is: env:NAME or file:PATH; default: env:VESTIBULE_ADMIN_TOKEN, or that of
    /// -c FILE
    #[arg(long, value_name = "REFERENCE")]
    token: Option<String>,
    /// The configuration file that the running vestibule was started with
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A client of one admin API.
#[derive(Debug)]
pub(super) struct AdminClient {
    address: SocketAddr,
    token: Token,
}

/// A token as a header value, and its source for error messages.
#[derive(Debug)]
struct Token {
    header: HeaderValue,
    source: String,
}

impl AdminArgs {
    /// The configuration file, if one was given.
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// Determines the address and the token. Blocks.
    pub(super) fn client(&self) -> anyhow::Result<AdminClient> {
        let config = self.config.as_deref().map(config::load).transpose()?;
        let address = match (self.admin, &config) {
            (Some(address), _) => address,
            (None, Some(Config { admin: Some(admin), .. })) => admin.address,
            (None, Some(_)) => bail!("the configuration file has no [admin]: give the address with --admin"),
            (None, None) => Admin::DEFAULT_ADDRESS,
        };
        let configured = config.and_then(|config| config.admin).and_then(|admin| admin.token);
        Ok(AdminClient { address, token: self.token(configured)? })
    }

    fn token(&self, configured: Option<Secret<String>>) -> anyhow::Result<Token> {
        if let Some(reference) = &self.token {
            // Without quoting the reference: the user may have passed the token itself.
            let token = config::secret(reference).context("--token cannot be used")?;
            return Token::new(token.expose(), "--token".to_owned());
        }
        if let Some(token) = std::env::var_os(TOKEN_VARIABLE).filter(|token| !token.is_empty()) {
            return Token::new(
                token.as_encoded_bytes(),
                format!("the environment variable {TOKEN_VARIABLE}"),
            );
        }
        let token = configured.with_context(|| {
            format!("no token: set {TOKEN_VARIABLE}, or give --token env:NAME, --token file:PATH or -c FILE")
        })?;
        Token::new(token.expose().as_bytes(), "the configuration file".to_owned())
    }
}

impl Token {
    fn new(token: &[u8], source: String) -> anyhow::Result<Self> {
        let header = HeaderValue::from_bytes(&[b"Bearer ", token].concat());
        let mut header = header.map_err(|_| anyhow!("the token from {source} cannot be sent in a header"))?;
        header.set_sensitive(true);
        Ok(Token { header, source })
    }
}

impl AdminClient {
    /// Posts a JSON document. Returns the status and document of a successful response. Everything else is an
    /// error that describes the remedy.
    pub(super) async fn post(&self, path: &str, document: &Value) -> anyhow::Result<(StatusCode, Value)> {
        self.post_within(DEADLINE, path, document).await
    }

    /// [`post`](Self::post) with its own timeout.
    pub(super) async fn post_within(
        &self,
        deadline: Duration,
        path: &str,
        document: &Value,
    ) -> anyhow::Result<(StatusCode, Value)> {
        self.call(deadline, Method::POST, path, document.to_string()).await
    }

    /// The document at `path`. Errors are those of [`post`](Self::post).
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.call(DEADLINE, Method::GET, path, String::new()).await?.1)
    }

    async fn call(
        &self,
        deadline: Duration,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let call = timeout(deadline, self.exchange(method, path, body)).await;
        let seconds = deadline.as_secs();
        let (status, body) =
            call.with_context(|| format!("{} did not answer within {seconds} seconds", self.address))??;
        let document: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() && document.is_object() {
            return Ok((status, document));
        }
        Err(self.refusal(status, &document))
    }

    fn refusal(&self, status: StatusCode, problem: &Value) -> anyhow::Error {
        let address = self.address;
        match (status, problem.get("detail").and_then(Value::as_str)) {
            (StatusCode::UNAUTHORIZED, Some(_)) => {
                let source = &self.token.source;
                anyhow!(
                    "the admin API at {address} does not accept the token from {source}: it must be that of [admin]"
                )
            }
            (_, Some(detail)) => anyhow!("the admin API at {address} answered {status}: {detail}"),
            (_, None) => anyhow!(
                "{address} answered {status}, but not as an admin API does; give the address of [admin] with --admin"
            ),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let address = self.address;
        let stream = TcpStream::connect(address).await.with_context(|| {
            format!(
                "cannot reach the admin API at {address}: start vestibule with [admin] in its configuration, or give \
                 its address with --admin"
            )
        })?;
        let broken = || format!("{address} did not answer as an admin API does");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.with_context(broken)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::USER_AGENT, concat!("vestibule/", env!("CARGO_PKG_VERSION")))
            .header(header::AUTHORIZATION, self.token.header.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let answer = sender.send_request(request).await.with_context(broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        connection.abort();
        Ok((status, body.map_err(anyhow::Error::from_boxed).with_context(broken)?.to_bytes()))
    }
}
