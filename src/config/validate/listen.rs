//! Listen addresses: for clients and for the admin API.

use std::net::SocketAddr;

use super::admin;
use crate::config::fault::{Fault, Spot};
use crate::config::file::Node;
use crate::config::model::Admin;
use crate::config::section::Section;
use crate::config::value::text;

/// The listeners and the admin listener, validated not to overlap.
pub(super) fn addresses(s: &mut Section<'_>) -> (Vec<SocketAddr>, Option<Admin>) {
    let why = "without one nobody could connect";
    let listeners: Vec<_> = s.tables("listener", why, |s| {
        let address = s.required("address", why, "\"127.0.0.1:8080\"", socket_address);
        address.map(|address| (s.spot("address"), address))
    });
    let admin = s.optional_table("admin", |s| (s.spot("address"), admin::admin(s)));
    let listeners: Vec<_> = listeners.into_iter().flatten().collect();
    let mut taken: Vec<&(Spot, SocketAddr)> = Vec::new();
    let own = admin.as_ref().map(|(spot, admin)| (spot.clone(), admin.address));
    for one in listeners.iter().chain(&own) {
        if let Some((spot, address)) = taken.iter().find(|other| overlap(other.1, one.1)) {
            s.fault(one.0.clone(), taken_address(one.1, *address, &spot.key));
        }
        taken.push(one);
    }
    (listeners.into_iter().map(|(_, address)| address).collect(), admin.map(|(_, admin)| admin))
}

/// `IP:port`.
pub(super) fn socket_address(node: &Node) -> Result<SocketAddr, Fault> {
    let text = text(node)?;
    text.parse().map_err(|_| {
        Fault::new(
            format!("{text:?} is not an address"),
            "names are not looked up, and no port is taken for granted",
            "write IP:port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
        )
    })
}

/// Whether a listener on one address would receive connections for the other. Port 0 is a new port each time.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: SocketAddr, b: SocketAddr| a.ip().is_unspecified() && a.is_ipv4() == b.is_ipv4();
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

fn taken_address(address: SocketAddr, by: SocketAddr, key: &str) -> Fault {
    let what = match address == by {
        true => format!("{address} is taken by `{key}` already"),
        false => format!("{address} and {by} of `{key}` take each other's connections"),
    };
    let why = "which of the two answers a connection would be left to chance";
    Fault::new(what, why, "give each its own port")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_when_one_can_take_the_others_connections() {
        let cases = [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::]:80", true),
            ("[::]:80", "0.0.0.0:80", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
        ];
        for (a, b, expected) in cases {
            assert_eq!(overlap(a.parse().unwrap(), b.parse().unwrap()), expected, "{a} {b}");
        }
    }
}
