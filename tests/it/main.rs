//! The proxy as its users meet it: real sockets, real upstreams, a real Redis; one module per promise.
#![cfg(test)]

mod admin;
mod canary;
mod checks;
mod compare;
mod config_files;
mod connections;
mod demo;
mod discovery;
mod drain;
mod drains;
mod forwarding;
mod header_trust;
mod health;
mod hedges;
mod limits;
mod modes;
mod observability;
mod outage;
mod outliers;
mod proofs;
mod reloads;
mod retries;
mod session_store;
mod sessions;
mod shipped_modes;
mod stickiness;
mod streaming;
mod stub;
mod support;
mod takeovers;
mod topologies;
mod upgrades;
mod uploads;
