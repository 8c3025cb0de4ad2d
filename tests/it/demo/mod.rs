//! What `vestibule demo` shows is true.

mod command;
mod modes;
mod page;

use std::net::SocketAddr;

use crate::support::client::{Client, Response};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
    Client::connect(address).await.request("POST", path, headers, body.as_bytes()).await
}
