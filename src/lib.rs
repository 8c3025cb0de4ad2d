//! vestibule is the room every request passes through before it reaches the house: a session-aware L7
//! reverse proxy and load balancer. It resolves who a request belongs to, tells the upstream in headers
//! that only it can write, and chooses the instance. One key, `session.mode`, switches between *shared*
//! sessions over stateless instances, *sticky* sessions, and neither.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | client | who calls us |
//! | upstream | a named group of servers we send to |
//! | instance | one server of an upstream |
//! | listener, route | where we accept; which upstream a host and path lead to |
//! | session, session id | the record of a login; the value that names it |
//! | store | where sessions live |
//! | resolution | the outcome of looking a session up: *Active, Absent, Ended, Unknown, Unreadable, Unavailable* |
//! | identity | what we tell the upstream about the user |
//! | affinity | which instance a client is tied to; a *tie* |
//! | lease | one request under way on an instance, released by dropping it; of the cache: until when it is used |
//! | beat | a key of our own in the store that changes; the report of it proves that changes are reported |
//! | run | of a server of the store: one life of its process, by its `run_id` |
//! | generation | what the session cache learned over one unbroken link to the store |
//! | tombstone | the memory of an ended session, so that nobody brings it back |
//! | discovery | looking for an upstream's instances while the proxy runs |
//! | health check | active judgement of an instance; *busy* is no judgement |
//! | slot | room for one request on an instance; who finds none waits in the queue |
//! | claim, share | what is held as long as an instance is at work on a request, such as its slot |
//! | doubt, proof | why an instance needs a good check before new requests go there; that check |
//! | outlier, ejection | an instance that requests fail on; leaving it alone for a while |
//! | warden | who alone writes the health of an upstream's instances |
//! | drain | stop new work, let running work end |
//! | stock, piece | the bytes of bodies that are held for those who are slow to take them; a part of a body |
//! | cohort | the clients that are served in one mode while modes are compared |
//! | drill | a failure on purpose, for a while; a *fenced* instance is treated as dead by one |
//! | canary, stable | the new version of an upstream that is tried, and the one it is compared with: a client's *side* |
//!
//! # The life of a request
//!
//! [`server`] accepts a connection and lets hyper read requests from it; each goes to
//! [`proxy::Service::handle`], which gives exactly one answer and one access-log line. In between lie the
//! six steps of `proxy::pipeline`:
//!
//! 1. **Route** by host and longest path prefix; what is not fit to be forwarded is refused first.
//! 2. **Clean**: hop-by-hop headers go, then every header that we assert, in any spelling; forwarding
//!    headers are rebuilt. The order matters: stripping after injecting would let `Connection: X-User-Id`
//!    delete the identity.
//! 3. **Resolve** the session: *Active* gives an identity; *Absent*, *Ended* and *Unknown* are handled as the
//!    route says, and only *Ended*, which is said of sessions that were there once, clears the cookie;
//!    *Unreadable* as `on_unreadable` and *Unavailable* as `on_outage` says. A store error never looks like a logout, and a request without a session id never touches the store. What was resolved is
//!    kept for all workers while the store's own reports of changes are proven to arrive (`session::cache`); look-ups
//!    of one session at the same time are one. An answer is believed of a primary, which says that it is one along with
//!    it; before a session is first honoured, it is noted as its user's.
//! 4. **Identify**: the configured headers are written from the session.
//! 5. **Choose and forward**: a route with a canary chooses the client's side (`canary`). A tie may name the
//!    instance, otherwise the balancer picks one with a free slot, or the request waits for a slot. An instance
//!    that cannot be reached is left out and the unsent request goes to another. What an instance may have seen
//!    goes to another only when it may be executed twice and the budget allows it (`proxy::repeat`,
//!    `proxy::sending`); anything else is sent once. A kept connection that ends without a byte is replaced first, if
//!    the request may be executed twice (`proxy::attempt`). How each attempt ended is noted of its instance, whose health
//!    one task per upstream judges (`health`).
//! 6. **Answer**: frames are passed on as they come. The body carries the request's record and lease, which
//!    end with the last byte or when the client leaves. A cut answer is passed on as cut.
//!
//! # What is promised of sessions
//!
//! `docs/consistency.md` tells what a cached session may be honoured for, what that assumes, what breaks it, and which
//! test holds it.
//!
//! # The life of a process
//!
//! [`app`] binds or inherits the sockets, starts the workers and ends them. What a request needs to know is one
//! immutable [`proxy::RuntimeConfig`]; one task alone replaces it, whether the file, an operator or a discovery wants a
//! change, and a request keeps the plan that it began with. Worker, connection and client outlive plans, so what
//! they keep from one they ask for anew. A new binary is a new process that is handed the sockets while the old one
//! ends with its last client.
//!
//! # The lab
//!
//! [`lab`] uses the rest from outside, as people do. [`lab::load`] is users with cookies, who follow a scenario.
//! [`lab::compare`] sets a stage for each mode and round (proxy, instances and store as processes that end with it),
//! lets the same users come while events happen, and holds what they missed against what the instances wrote down.
//! [`lab::report`] shows what came of it.
//!
//! # The house
//!
//! Modules are declared below from the ground up and import only downwards; a test enforces it. Siblings of
//! layers 2 and 3 do not know each other. Only `proxy::error` turns failures into statuses, and `admin::api` its own.
//!
//! # Speed
//!
//! One worker per core: a current-thread runtime with its own listeners (`SO_REUSEPORT`), its own upstream
//! connections and its own connections to the store. Workers share only immutable snapshots
//! ([`proxy::RuntimeConfig`]), the cache of sessions and atomics; counters are per worker and added up when they are
//! read. Per request there are two reads and two writes on sockets, no task besides the client's own
//! (`transport::connection` says how), and no timer of its own ([`clock::LazyTimer`]). A client that pauses
//! costs a socket and about a kibibyte (`server::connection`).

// Layer 0: ground. Knows nothing of this program.
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

// Layer 1: what the operator wants.
pub mod config;

// Layer 2: the worlds; they do not know each other.
pub mod discovery;
pub mod session;
pub mod traffic_split;
pub mod transport;
pub mod upstream;

// Layer 3: decisions.
pub mod affinity;
pub mod balance;
pub mod canary;
pub mod cohort;
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
