//! The proxy as its users meet it: real sockets, real upstreams, a real Redis; one module per promise.

#[cfg(test)]
mod demo;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod support;
