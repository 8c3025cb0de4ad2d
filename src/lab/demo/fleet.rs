//! The application's instances: started together, killed and brought back one by one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio_util::task::AbortOnDropHandle;

use super::{ControlError, InstanceState};
use crate::lab::stub::{Handle, Options, Sessions, Stub};

/// What the proxy's health checks ask for; not part of what the page counts.
const HEALTH_CHECK: &str = "GET /health";

/// All instances, each on a loopback port that it keeps.
pub(super) struct Fleet {
    /// Where an instance that starts now keeps its logins.
    sessions: Sessions,
    members: Vec<Member>,
}

struct Member {
    name: String,
    address: SocketAddr,
    /// `None`: stopped.
    life: Option<Life>,
}

struct Life {
    handle: Handle,
    task: AbortOnDropHandle<()>,
}

impl Fleet {
    /// Starts `count` instances, named `api-1` and so on, on ports of the system's choice.
    pub(super) async fn start(count: usize, sessions: Sessions) -> io::Result<Self> {
        let mut fleet = Fleet { sessions, members: Vec::with_capacity(count) };
        for number in 1..=count {
            let (name, any_port) = (format!("api-{number}"), SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
            let (address, life) = start(&name, any_port, &fleet.sessions).await?;
            fleet.members.push(Member { name, address, life: Some(life) });
        }
        Ok(fleet)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.members.iter().map(|member| member.address)
    }

    /// From the next request on every instance keeps logins there.
    pub(super) async fn keep_logins_in(&mut self, sessions: Sessions) -> Result<(), ControlError> {
        for Life { handle, .. } in self.members.iter().filter_map(|member| member.life.as_ref()) {
            handle
                .set_sessions(&sessions)
                .await
                .map_err(|error| ControlError::Failed(io::Error::other(error)))?;
        }
        self.sessions = sessions;
        Ok(())
    }

    /// Kills an instance: connections are cut, its memory is lost, its port is closed when this resolves.
    pub(super) async fn stop(&mut self, instance: usize) -> Result<(), ControlError> {
        let member = self.members.get_mut(instance).ok_or(ControlError::NoSuchInstance)?;
        if let Some(Life { task, .. }) = member.life.take() {
            task.abort();
            // Says that it was cancelled, as was wanted.
            let _ = task.await;
        }
        Ok(())
    }

    /// Brings an instance back where it was.
    pub(super) async fn restart(&mut self, instance: usize) -> Result<(), ControlError> {
        let member = self.members.get_mut(instance).ok_or(ControlError::NoSuchInstance)?;
        if member.life.is_none() {
            let started = start(&member.name, member.address, &self.sessions).await;
            member.life = Some(started.map_err(ControlError::Failed)?.1);
        }
        Ok(())
    }

    pub(super) fn states(&self) -> Vec<InstanceState> {
        self.members.iter().map(Member::state).collect()
    }
}

impl Member {
    fn state(&self) -> InstanceState {
        let seen = self.life.as_ref().map(|life| life.handle.snapshot());
        InstanceState {
            name: self.name.clone(),
            address: self.address,
            running: seen.is_some(),
            requests: seen.as_ref().map_or(0, |seen| {
                seen.requests - seen.endpoints.get(HEALTH_CHECK).copied().unwrap_or_default()
            }),
            active_sessions: seen.map_or(0, |seen| seen.sessions_active),
        }
    }
}

async fn start(name: &str, listen: SocketAddr, sessions: &Sessions) -> io::Result<(SocketAddr, Life)> {
    let options =
        Options { listen, instance: name.to_owned(), sessions: sessions.clone(), ..Options::default() };
    let stub = Stub::bind(options).await?;
    let (address, handle) = (stub.local_addr(), stub.handle());
    let task = AbortOnDropHandle::new(tokio::spawn(stub.run(std::future::pending())));
    Ok((address, Life { handle, task }))
}
