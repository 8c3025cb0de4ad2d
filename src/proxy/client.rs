//! What is known of a client from its connection alone.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;

/// One client connection's ends, with the header values made from them.
#[derive(Debug)]
pub struct Client {
    pub(super) address: IpAddr,
    pub(super) address_value: HeaderValue,
    pub(super) port_value: HeaderValue,
}

impl Client {
    /// A client that connected from `peer` to `local`. IPv4-mapped addresses count as IPv4.
    pub fn new(peer: SocketAddr, local: SocketAddr) -> Self {
        let address = peer.ip().to_canonical();
        Client { address, address_value: address_value(address), port_value: HeaderValue::from(local.port()) }
    }
}

/// `address` as a header value.
pub(super) fn address_value(address: IpAddr) -> HeaderValue {
    // Digits, letters, dots and colons are always valid.
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
