//! The proxy as its users meet it: real sockets, real upstreams, a real Redis; one module per promise.

mod config_files;
mod session_store;
mod stub;
mod support;
