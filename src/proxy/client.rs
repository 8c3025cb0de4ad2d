//! Data of a client connection that its requests share.

use std::net::IpAddr;

use http::HeaderValue;

use super::interim::Interim;

/// Endpoints of one client connection, with the header values derived from them.
#[derive(Debug)]
pub struct Client {
    pub(super) address: IpAddr,
    pub(super) address_value: HeaderValue,
    pub(super) port_value: HeaderValue,
    pub(super) interim: Interim,
}

impl Client {
    /// Creates the data for a client that connected from `address` to the local `port`. IPv4-mapped addresses
    /// are converted to IPv4.
    pub fn new(address: IpAddr, port: u16) -> Self {
        let address = address.to_canonical();
        Client {
            address,
            address_value: address_value(address),
            port_value: HeaderValue::from(port),
            interim: Interim::default(),
        }
    }

    /// Takes the interim responses to be written.
    pub fn take_interim(&self) -> Option<Vec<u8>> {
        self.interim.take()
    }
}

/// Formats `address` as a header value.
pub(super) fn address_value(address: IpAddr) -> HeaderValue {
    // Cannot fail: digits, letters, dots and colons are valid in header values.
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
