//! Connection settings that all connections to the servers of one store share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, TlsCertificates,
};

use crate::config::{self, Credentials, Host, RedisUrl};

use super::fault_injector::FaultInjector;
use super::outages::Outages;

/// Value of `TCP_USER_TIMEOUT` and of the TCP keepalive time and interval. With both, a dead peer is detected
/// soon even when no command is in flight.
const DEAD_PEER: Duration = Duration::from_secs(2);

/// Why a store could not be started. Contains no part of the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the URL of the session store is malformed")]
    Url,
    #[error("{path} cannot be read")]
    ReadPem { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no usable certificate, or the session store's URL is not rediss")]
    Ca { path: PathBuf },
    #[error("{path} and its private key cannot be used, or the session store's URL is not rediss")]
    Certificate { path: PathBuf },
}

/// Everything needed to connect to any server of one kind: Redis servers or sentinels.
pub(super) struct Access {
    /// Connection settings for an arbitrary host, without credentials.
    template: ConnectionInfo,
    credentials: ArcSwap<Credentials>,
    /// The URL to reread the credentials from; `None` if they cannot be reread.
    source: Option<RedisUrl>,
    /// Set when a server has rejected the credentials.
    refused: AtomicBool,
    pub(super) switch: FaultInjector,
    pub(super) outages: Outages,
    /// Set when a server does not support RESP3, or does not permit it.
    without_resp3: AtomicBool,
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
}

impl Access {
    /// Settings for the Redis servers of `url`.
    pub(super) fn to_redis(url: &RedisUrl, config: &config::Store) -> Result<Arc<Self>, StartError> {
        let keepalive = TcpKeepalive::new().with_time(DEAD_PEER).with_interval(DEAD_PEER);
        let tcp =
            TcpSettings::default().set_nodelay(true).set_keepalive(keepalive).set_user_timeout(DEAD_PEER);
        // With RESP3 the driver reports a lost connection at once, through a push.
        let redis = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(url.database.into());
        let info = address(url, config)?.into_connection_info().map_err(|_| StartError::Url)?;
        Ok(Arc::new(Access {
            template: info.set_tcp_settings(tcp).set_redis_settings(redis),
            credentials: ArcSwap::from_pointee(url.credentials.clone()),
            source: Some(url.clone()),
            switch: FaultInjector::default(),
            outages: Outages::of("a server of the session store"),
            refused: AtomicBool::new(false),
            without_resp3: AtomicBool::new(false),
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
        }))
    }

    /// Settings for the sentinels that monitor these servers.
    pub(super) fn to_sentinels(&self, credentials: &Credentials) -> Arc<Self> {
        let redis = self.template.redis_settings().clone().set_db(0);
        Arc::new(Access {
            template: self.template.clone().set_redis_settings(redis),
            credentials: ArcSwap::from_pointee(credentials.clone()),
            source: None,
            switch: self.switch.clone(),
            outages: Outages::of("a sentinel of the session store"),
            refused: AtomicBool::new(false),
            without_resp3: AtomicBool::new(false),
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
        })
    }

    /// The driver's settings for a connection to `host`. Rereads the credentials first if a server has
    /// rejected them.
    pub(super) fn to(&self, host: &Host) -> ConnectionInfo {
        if self.refused.swap(false, Ordering::Relaxed)
            && let Some(fresh) = self.source.as_ref().and_then(RedisUrl::reread_credentials)
        {
            self.credentials.store(Arc::new(fresh));
        }
        let Host { name: host, port } = host.clone();
        let address = match self.template.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        let mut redis = with_credentials(self.template.redis_settings().clone(), &self.credentials.load());
        if self.is_without_resp3() {
            redis = redis.set_protocol(ProtocolVersion::RESP2);
        }
        self.template.clone().set_addr(address).set_redis_settings(redis)
    }

    /// Whether connections use RESP2, in which servers send no pushes.
    pub(super) fn is_without_resp3(&self) -> bool {
        self.without_resp3.load(Ordering::Relaxed)
    }

    pub(super) fn set_without_resp3(&self) {
        if !self.without_resp3.swap(true, Ordering::Relaxed) {
            tracing::warn!("the session store speaks no RESP3; lost connections are noticed late");
        }
    }

    /// Records that a server has rejected the credentials. They are reread before the next connection
    /// attempt.
    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

fn with_credentials(mut redis: RedisConnectionInfo, credentials: &Credentials) -> RedisConnectionInfo {
    if let Some(user) = &credentials.user {
        redis = redis.set_username(user);
    }
    if let Some(password) = &credentials.password {
        redis = redis.set_password(password.expose());
    }
    redis
}

/// The address of the first host, with the TLS parameters.
fn address(url: &RedisUrl, config: &config::Store) -> Result<ConnectionAddr, StartError> {
    let Host { name: host, port } = url.hosts.first().ok_or(StartError::Url)?.clone();
    let plain = match url.tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    };
    let root_cert = config.ca.as_deref().map(read).transpose()?;
    let mut address = plain.clone();
    if let Some(path) = &config.ca {
        let trusted = TlsCertificates { client_tls: None, root_cert: root_cert.clone() };
        address = with_tls(&plain, trusted).ok_or_else(|| StartError::Ca { path: path.clone() })?;
    }
    if let Some(files) = &config.certificate {
        let client_tls =
            ClientTlsConfig { client_cert: read(&files.certificate)?, client_key: read(&files.private_key)? };
        let both = TlsCertificates { client_tls: Some(client_tls), root_cert };
        let unusable = || StartError::Certificate { path: files.certificate.clone() };
        address = with_tls(&plain, both).ok_or_else(unusable)?;
    }
    Ok(address)
}

fn with_tls(address: &ConnectionAddr, certificates: TlsCertificates) -> Option<ConnectionAddr> {
    let client = Client::build_with_tls(address.clone(), certificates).ok()?;
    Some(client.get_connection_info().addr().clone())
}

fn read(path: &Path) -> Result<Vec<u8>, StartError> {
    std::fs::read(path).map_err(|source| StartError::ReadPem { path: path.to_owned(), source })
}
