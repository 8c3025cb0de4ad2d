//! vestibule: a session-aware L7 reverse proxy and load balancer.

// Layer 0: ground. Knows nothing of this program.
pub mod backoff;
pub mod body;
pub mod clock;
pub mod drain;
pub mod headers;
pub mod secret;
pub mod socket;
pub mod telemetry;

// Layer 1: what the operator wants.
pub mod config;

// Layer 2: the three worlds; they do not know each other.
pub mod session;
pub mod transport;
pub mod upstream;

// Layer 3: decisions.
pub mod affinity;
pub mod balance;
pub mod health;
pub mod identity;

// Layer 4: the request.
pub mod proxy;

// Layer 5: the edges.
pub mod admin;
pub mod server;

// Layer 6: composition and tools.
pub mod app;
pub mod cli;
pub mod lab;
