//! What is known of a client from its connection alone.

use std::net::IpAddr;

use http::HeaderValue;

use super::interim::Interim;

/// One client connection's ends, with the header values made from them.
#[derive(Debug)]
pub struct Client {
    pub(super) address: IpAddr,
    pub(super) address_value: HeaderValue,
    pub(super) port_value: HeaderValue,
    pub(super) interim: Interim,
}

impl Client {
    /// A client that connected from `address` to our `port`. IPv4-mapped addresses count as IPv4.
    pub fn new(address: IpAddr, port: u16) -> Self {
        let address = address.to_canonical();
        Client {
            address,
            address_value: address_value(address),
            port_value: HeaderValue::from(port),
            interim: Interim::default(),
        }
    }

    /// Takes the interim responses that wait to be written.
    pub fn take_interim(&self) -> Option<Vec<u8>> {
        self.interim.take()
    }
}

/// `address` as a header value.
pub(super) fn address_value(address: IpAddr) -> HeaderValue {
    // Digits, letters, dots and colons are always valid.
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
