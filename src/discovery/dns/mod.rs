//! Discovery from DNS: A and AAAA records of a name, or SRV records and the addresses of their targets.

mod client;
mod exchange;
mod names;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::failure::Failure;
use crate::config::{DnsDiscovery, DnsQuestion, Instance};
use client::Client;

/// A DNS query that is repeated.
#[derive(Debug)]
pub(super) struct Dns {
    config: Arc<DnsDiscovery>,
    /// Index of the resolver that is asked first: the one that answered last.
    preferred: Arc<AtomicUsize>,
}

/// The instances, and how long the records are valid.
struct Answer {
    instances: Vec<Instance>,
    ttl: Duration,
}

impl Dns {
    pub(super) fn new(config: &DnsDiscovery) -> Self {
        Dns { config: Arc::new(config.clone()), preferred: Arc::default() }
    }

    /// Makes one look-up. Returns its result and the pause until the next one: the TTL within `min_ttl` and
    /// `max_ttl`, or `min_ttl` after a failure.
    pub(super) async fn look(&self) -> (Result<Vec<Instance>, Failure>, Duration) {
        let DnsDiscovery { min_ttl, max_ttl, timeout: patience, .. } = *self.config;
        let answer = timeout(patience, self.ask()).await;
        match answer.unwrap_or(Err(Failure::TimedOut(patience))) {
            Ok(Answer { instances, ttl }) => (Ok(instances), ttl.clamp(min_ttl, max_ttl)),
            Err(failure) => (Err(failure), min_ttl),
        }
    }

    async fn ask(&self) -> Result<Answer, Failure> {
        let client = self.client().await?;
        match &self.config.question {
            DnsQuestion::Addresses { name, port } => {
                let found = client.search(name, |name| client.addresses(name)).await?;
                let instance = |ip| Instance::at(SocketAddr::new(ip, *port));
                Ok(Answer { instances: found.addresses.into_iter().map(instance).collect(), ttl: found.ttl })
            }
            DnsQuestion::Services { name } => {
                let found = client.search(name, |name| client.services(name)).await?;
                service::instances(&client, found).await
            }
        }
    }

    /// Created anew for each look-up, so that a change of the system's resolvers needs no restart.
    async fn client(&self) -> Result<Client, Failure> {
        let (config, preferred) = (self.config.clone(), self.preferred.clone());
        let made = spawn_blocking(move || Client::new(&config, preferred)).await;
        made.unwrap_or_else(|lost| Err(Failure::System(lost.to_string())))
    }
}
