//! vestibule is a session-aware L7 reverse proxy and load balancer. For each request it finds the user's session, sets
//! identity headers that the client cannot forge, and chooses the instance. One key, `session.mode`, switches between
//! *shared* sessions over stateless instances, *sticky* sessions, and neither (*local*).
//!
//! # Terms
//!
//! | term | meaning |
//! |---|---|
//! | client | the peer that sends a request |
//! | upstream | a named group of instances |
//! | instance | one server of an upstream |
//! | listener, route | an address that accepts connections; the upstream that a host and a path prefix lead to |
//! | session, session id | the record of a login; the value that names it |
//! | store | the database that holds sessions: Redis, or memory |
//! | resolution | the outcome of a session look-up: *Active, Absent, Ended, Unknown, Unreadable, Unavailable* |
//! | identity | the headers that tell the upstream who the user is |
//! | affinity, sticky binding | the choice of an instance by client; a client's binding to one instance |
//! | lease | one request in flight on an instance, ended by dropping it |
//! | validity | of a cache entry: the time until which it may be used |
//! | beat | a key that vestibule itself changes in the store; its invalidation proves that invalidations arrive |
//! | run | one life of a store server's process, named by its `run_id` |
//! | generation | what the session cache learned over one unbroken link to the store |
//! | tombstone | the record of an ended session, which keeps it from being created again |
//! | discovery | the search for an upstream's instances while the proxy runs |
//! | health check | an active test of an instance; the result *busy* changes nothing |
//! | slot | the right to one request on an instance; a request that finds none waits in the queue |
//! | slot share | what is held for as long as an instance works on a request, such as its slot |
//! | unproven, fresh check | an instance that must pass a health check before it gets new requests; that check |
//! | outlier, ejection | an instance that requests fail on; its exclusion for a while |
//! | health manager | the one task per upstream that writes the health of its instances |
//! | drain | accept no new work, let running work end |
//! | body memory, piece | the bytes of bodies that are held for slow readers; a part of a body |
//! | cohort | the clients that are served in one mode while modes are compared |
//! | drill | a fault that is injected for a while; an instance under a drill is *fenced*: it counts as dead |
//! | canary, stable | the new version of an upstream and the one it is compared with: a client's *variant* |
//!
//! # The life of a request
//!
//! [`server`] accepts a connection, and hyper reads requests from it. Each goes to [`proxy::Service::handle`], which
//! gives exactly one response and writes one access-log line. `proxy::pipeline` has six steps:
//!
//! 1. **Route** by host and longest path prefix. Requests that must not be forwarded are refused first.
//! 2. **Clean**: hop-by-hop headers are removed, then every header that vestibule sets, in any spelling. Forwarding
//!    headers are rebuilt. The order matters: if identity headers were set before, `Connection: X-User-Id` would
//!    delete them.
//! 3. **Resolve** the session. *Active* gives an identity. *Absent*, *Ended* and *Unknown* are handled by the route's
//!    `on_absent`; only *Ended*, which requires that the session existed, clears the cookie. *Unreadable* is handled by
//!    `on_unreadable`, *Unavailable* by `on_outage`. A store error is never treated as a logout. A request without a
//!    session id never reaches the store. Sessions are cached for all workers while invalidations are proven to arrive
//!    (`session::cache`). Concurrent look-ups of one session are a single flight. A reply counts only if it comes from a
//!    primary, which confirms its role in the same reply. A session enters its user's index before it is first used.
//! 4. **Identify**: the configured headers are written from the session.
//! 5. **Choose and forward**: a route with a canary chooses the client's variant (`canary`). A sticky binding may name
//!    the instance; otherwise the balancer picks one with a free slot, or the request waits for a slot. When an instance
//!    cannot be reached, the unsent request goes to another one. A request that an instance may have seen goes to another
//!    one only if it may run twice and the retry budget allows it (`proxy::retry_policy`, `proxy::retry_loop`). When a
//!    kept connection ends before the first byte of the response, it is replaced first, if the request may run twice
//!    (`proxy::attempt`). The outcome of each attempt is added to the instance's statistics, from which the upstream's
//!    health manager decides (`health`).
//! 6. **Respond**: frames are passed on as they come. The body owns the request's context and lease, which end with the
//!    last byte or when the client leaves. A truncated response is passed on as truncated.
//!
//! # What is promised of sessions
//!
//! `docs/consistency.md` states how long a cached session may be used, what this assumes, what breaks it, and which test
//! holds it.
//!
//! # The life of a process
//!
//! [`app`] binds or inherits the sockets, starts the workers and ends them. All that a request needs of the configuration
//! is one immutable [`proxy::RuntimeConfig`]. One task replaces it, for the file, the operator and discovery alike. A
//! request keeps the one that it began with. Workers, connections and clients outlive it, so they read it anew for each
//! request. An upgrade starts a new process and hands it the sockets; the old process ends with its last client.
//!
//! # The lab
//!
//! [`lab`] uses vestibule from outside, as people do. [`lab::load`] simulates users with cookies who follow a scenario.
//! [`lab::compare`] starts proxy, instances and store as processes for each mode and round, sends the same users while
//! events happen, and compares their losses with the instances' own records. [`lab::report`] writes the report.
//!
//! # Layers
//!
//! Modules are declared below from the bottom up and import only downwards; a test enforces it. Siblings of layers 2 and
//! 3 do not import each other. Only `proxy::error` maps failures to statuses, and `admin::api` its own.
//!
//! # Speed
//!
//! One worker per core: a current-thread runtime with its own listeners (`SO_REUSEPORT`), its own upstream connections
//! and its own connections to the store. Workers share only immutable snapshots ([`proxy::RuntimeConfig`]), the session
//! cache and atomics. Counters are per worker and summed when they are read. A request costs two reads and two writes on
//! sockets, no task besides the client's own (`transport::connection` says how), and no timer of its own
//! ([`clock::LazyTimer`]). An idle client costs a socket and about a kibibyte (`server::connection`).

// Layer 0: basics, which know nothing of this program.
pub mod backoff;
pub mod body;
pub mod body_memory;
pub mod clock;
pub mod drain;
#[cfg(test)]
#[path = "../tests/golden/compare.rs"]
mod golden;
pub mod headers;
pub mod heap;
pub mod seal;
pub mod secret;
pub mod socket;
pub mod telemetry;

// Layer 1: configuration.
pub mod config;

// Layer 2: sessions, upstreams and the way to them; no imports between them.
pub mod discovery;
pub mod session;
pub mod traffic_split;
pub mod transport;
pub mod upstream;

// Layer 3: decisions; no imports between them.
pub mod affinity;
pub mod balance;
pub mod canary;
pub mod cohort;
pub mod health;
pub mod identity;

// Layer 4: requests.
pub mod proxy;

// Layer 5: listeners.
pub mod admin;
pub mod server;

// Layer 6: the process, and tools.
pub mod app;
pub mod cli;
pub mod lab;
