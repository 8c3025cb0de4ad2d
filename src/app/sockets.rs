//! The listening sockets of a process: binding, inheriting, distributing among workers, handing over.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::AppError;
use crate::config::Config;
use crate::server;

/// The purpose of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Clients,
    Operator,
}

/// The sockets of one address.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) role: Role,
    /// As written in the configuration; the port may be 0.
    pub(super) address: SocketAddr,
    /// Never empty.
    pub(super) sockets: Vec<TcpListener>,
}

/// Sockets inherited at process start.
#[derive(Debug, Default)]
pub(super) struct InheritedSockets {
    /// From the predecessor.
    pub(super) handed_over: Vec<Group>,
    /// From the service manager.
    pub(super) activated: Vec<TcpListener>,
}

/// All listening sockets of the process.
#[derive(Debug)]
pub(super) struct Sockets(Vec<Group>);

impl Sockets {
    /// Takes the sockets that `config` names from `inherited` and binds the others. Handed-over sockets that
    /// `config` does not name are closed. A socket from the service manager that `config` does not name is an
    /// error.
    pub(super) fn acquire(config: &Config, mut inherited: InheritedSockets) -> Result<Self, AppError> {
        let mut groups = Vec::new();
        for address in &config.listeners {
            groups.push(inherited.group(Role::Clients, *address, config.workers.get())?);
        }
        if let Some(admin) = &config.admin {
            groups.push(inherited.group(Role::Operator, admin.address, 1)?);
        }
        if let Some(socket) = inherited.activated.first() {
            let address = socket.local_addr().map_err(AppError::Thread)?;
            return Err(AppError::Unasked(address));
        }
        for group in inherited.handed_over {
            tracing::info!(address = %group.address, "the configuration no longer names this address: closing");
        }
        Ok(Sockets(groups))
    }

    /// The socket groups to hand over.
    pub(super) fn groups(&self) -> &[Group] {
        &self.0
    }

    /// The client listeners' addresses, in the order of the configuration, with the ports that the system
    /// chose.
    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.of(Role::Clients)
            .filter_map(|group| group.sockets.first())
            .map(TcpListener::local_addr)
            .collect()
    }

    /// Handles to the client sockets, one list per worker. Every socket is assigned to a worker, because
    /// connections in the accept queue of an unassigned socket would never be accepted.
    pub(super) fn for_workers(&self, workers: usize) -> io::Result<Vec<Vec<TcpListener>>> {
        let mut lists = Vec::new();
        lists.resize_with(workers, Vec::new);
        for group in self.of(Role::Clients) {
            for (index, socket) in group.sockets.iter().enumerate() {
                if let Some(list) = lists.get_mut(index % workers) {
                    list.push(socket.try_clone()?);
                }
            }
        }
        Ok(lists)
    }

    /// A handle to the admin socket, and its address.
    pub(super) fn for_operator(&self) -> io::Result<Option<(SocketAddr, TcpListener)>> {
        let socket = self.of(Role::Operator).find_map(|group| group.sockets.first());
        socket.map(|socket| Ok((socket.local_addr()?, socket.try_clone()?))).transpose()
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Group> {
        self.0.iter().filter(move |group| group.role == role)
    }
}

impl InheritedSockets {
    /// Takes or binds at least `count` sockets for one address.
    fn group(&mut self, role: Role, address: SocketAddr, count: usize) -> Result<Group, AppError> {
        let failed = |source| AppError::Bind { address, source };
        let mut sockets = match self.take(role, address) {
            Some(sockets) => sockets,
            None if role == Role::Operator => vec![server::bind_exclusive(address).map_err(failed)?],
            None => server::bind(address, count).map_err(failed)?,
        };
        for socket in &sockets {
            socket.set_nonblocking(true).map_err(failed)?;
        }
        server::share(&mut sockets, count).map_err(failed)?;
        Ok(Group { role, address, sockets })
    }

    fn take(&mut self, role: Role, address: SocketAddr) -> Option<Vec<TcpListener>> {
        let same = |group: &Group| group.role == role && group.address == address;
        if let Some(index) = self.handed_over.iter().position(same) {
            return Some(self.handed_over.remove(index).sockets);
        }
        let is_at = |socket: &mut TcpListener| socket.local_addr().is_ok_and(|local| local == address);
        let sockets: Vec<_> = self.activated.extract_if(.., is_at).collect();
        (!sockets.is_empty()).then_some(sockets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    fn config(listeners: &[SocketAddr], workers: usize) -> Config {
        let listeners: String =
            listeners.iter().map(|address| format!("[[listener]]\naddress = \"{address}\"\n")).collect();
        let text = format!(
            "version = 1\nworkers = {workers}\n{listeners}[[upstream]]\nname = \"a\"\n\
             instance = [{{ address = \"127.0.0.1:1\" }}]\n[[route]]\npath = \"/\"\nupstream = \"a\"\n"
        );
        crate::config::parse(&text, "test").unwrap()
    }

    fn handed_over(address: SocketAddr, count: usize) -> Group {
        Group { role: Role::Clients, address, sockets: server::bind(address, count).unwrap() }
    }

    #[test]
    fn every_socket_handed_over_is_listened_on_whatever_the_number_of_workers() {
        for (held, workers, each) in [(3, 1, vec![3]), (3, 2, vec![2, 1]), (2, 3, vec![1, 1, 1])] {
            let group = handed_over(loopback(), held);
            let address = group.sockets[0].local_addr().unwrap();
            let inherited = InheritedSockets { handed_over: vec![group], activated: Vec::new() };
            let sockets = Sockets::acquire(&config(&[loopback()], workers), inherited).unwrap();
            let lists = sockets.for_workers(workers).unwrap();
            assert_eq!(lists.iter().map(Vec::len).collect::<Vec<_>>(), each);
            assert!(lists.iter().flatten().all(|socket| socket.local_addr().unwrap() == address));
            assert_eq!(sockets.addresses().unwrap(), [address]);
        }
    }

    #[test]
    fn addresses_that_are_no_longer_named_are_closed_and_new_ones_bound() {
        let (kept, dropped) =
            (handed_over(([127, 0, 0, 1], 0).into(), 1), handed_over(([127, 0, 0, 2], 0).into(), 1));
        let (kept_at, dropped_at) =
            (kept.sockets[0].local_addr().unwrap(), dropped.sockets[0].local_addr().unwrap());
        let inherited = InheritedSockets { handed_over: vec![dropped, kept], activated: Vec::new() };
        let named = [loopback(), ([127, 0, 0, 3], 0).into()];
        let sockets = Sockets::acquire(&config(&named, 1), inherited).unwrap();
        let addresses = sockets.addresses().unwrap();
        assert_eq!(addresses[0], kept_at);
        assert!(addresses.iter().all(|address| std::net::TcpStream::connect(address).is_ok()));
        assert!(std::net::TcpStream::connect(dropped_at).is_err());
    }

    #[test]
    fn a_socket_of_the_service_manager_that_nobody_asked_for_is_an_error() {
        let socket = server::bind_exclusive(loopback()).unwrap();
        let address = socket.local_addr().unwrap();
        let activated = || vec![socket.try_clone().unwrap()];
        let inherited = || InheritedSockets { activated: activated(), ..Default::default() };
        let error = Sockets::acquire(&config(&[loopback()], 1), inherited()).unwrap_err();
        assert!(matches!(error, AppError::Unasked(unasked) if unasked == address), "{error}");
        let sockets = Sockets::acquire(&config(&[address], 2), inherited()).unwrap();
        assert_eq!(sockets.for_workers(2).unwrap().iter().flatten().count(), 2);
    }
}
