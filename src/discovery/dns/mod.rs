//! Instances in DNS: A and AAAA records of a name, or SRV records and the addresses of their targets.

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

/// One question that is asked again and again.
#[derive(Debug)]
pub(super) struct Dns {
    config: Arc<DnsDiscovery>,
    /// Which of the resolvers is asked first: the one that answered last.
    preferred: Arc<AtomicUsize>,
}

/// Instances, and how long the records may be believed.
struct Answer {
    instances: Vec<Instance>,
    ttl: Duration,
}

impl Dns {
    pub(super) fn new(config: &DnsDiscovery) -> Self {
        Dns { config: Arc::new(config.clone()), preferred: Arc::default() }
    }

    /// Asks once, and tells when to ask again. What fails is asked again after the shortest time.
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

    /// Made anew each time, so that a change of the system's resolvers needs no restart.
    async fn client(&self) -> Result<Client, Failure> {
        let (config, preferred) = (self.config.clone(), self.preferred.clone());
        let made = spawn_blocking(move || Client::new(&config, preferred)).await;
        made.unwrap_or_else(|lost| Err(Failure::System(lost.to_string())))
    }
}
