//! Upstreams. Part of the model: validated, typed, defaults filled in.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::HeaderName;

use super::discovery::Discovery;
use super::health::{HealthCheck, Outlier};
use super::retry::{Hedge, Retry};
use super::stickiness::{OnLost, Rebalance, Stick};

#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Unique.
    pub name: String,
    pub balance: Balance,
    /// Used in sticky mode.
    pub stick: Stick,
    pub on_lost: OnLost,
    /// `None`: sessions are never moved to an instance that was added later.
    pub rebalance: Option<Rebalance>,
    /// Whether the `Vestibule-Session` header of its responses is obeyed.
    pub session_control: bool,
    pub health: Option<HealthCheck>,
    pub outlier: Outlier,
    pub queue: Queue,
    pub retry: Retry,
    pub hedge: Option<Hedge>,
    pub connections: Connections,
    /// Maximum time that an abandoned request keeps its slot. A request is abandoned when the proxy gives it up
    /// before its response; until the instance responds or closes the connection it may still work on it.
    pub abandoned: Duration,
    /// Slow start: how long an instance that comes back takes to reach its full share. `None`: it gets its
    /// full share at once.
    pub slow_start: Option<Duration>,
    /// Panic threshold in percent: when fewer instances are healthy, their health is ignored. 0: never.
    pub panic_below: u8,
    /// Addresses are unique. Empty only with `discovery`.
    pub instances: Vec<Instance>,
    /// Where further instances are discovered.
    pub discovery: Option<Discovery>,
}

/// How an instance is chosen for a request without affinity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, exact over all workers.
    RoundRobin,
    /// The instance with the fewest requests in flight relative to its weight; among equals the least
    /// recently used.
    LeastRequests,
    /// Power of two choices: the less loaded of two random instances (Mitzenmacher 2001).
    TwoChoices,
    /// Random, in proportion to the weights.
    Random,
    /// The instance selected by the hash of a request property.
    Hash(Hash),
}

/// Consistent hashing: a change of the instances moves as few keys as possible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    pub key: HashKey,
    /// Bounded load: maximum load of an instance in percent of the average before its keys go to the next one
    /// (Mirrokni et al. 2018); more than 100. `None`: no bound.
    pub bound: Option<u32>,
}

/// What is hashed. A request without it is balanced by round robin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The session id as sent by the client.
    Session,
    /// The resolved session's user.
    User,
    Header(HeaderName),
    Cookie(String),
    /// The client's address.
    Client,
}

/// The queue of requests that wait for a free slot of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Maximum queue length. May be zero: requests do not wait.
    pub length: usize,
    pub timeout: Duration,
}

/// The connection pool of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Age at which a connection is no longer reused. `None`: no limit.
    pub max_lifetime: Option<Duration>,
    /// Requests after which a connection is no longer reused. `None`: no limit.
    pub max_requests: Option<u32>,
    /// Connections opened in advance, per worker.
    pub warm: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub address: SocketAddr,
    /// The application's name for the instance; unique within the upstream.
    pub name: Option<String>,
    /// 1..=1000
    pub weight: u32,
    /// Whether it serves only while no other instance is able to.
    pub backup: bool,
    pub state: InstanceState,
    /// Slots: concurrent requests, and connections. `None`: unlimited.
    pub max_requests: Option<usize>,
}

/// The administrative state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// It accepts requests.
    Ready,
    /// It keeps its sessions, accepts no new ones, and completes requests in flight.
    Drain,
    /// It accepts no requests and completes requests in flight.
    Down,
}

impl Balance {
    /// The name in the configuration and the API.
    pub fn as_str(&self) -> &'static str {
        match self {
            Balance::RoundRobin => "round_robin",
            Balance::LeastRequests => "least_requests",
            Balance::TwoChoices => "two_choices",
            Balance::Random => "random",
            Balance::Hash(_) => "hash",
        }
    }
}

impl InstanceState {
    /// The name in the configuration, the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Ready => "ready",
            InstanceState::Drain => "drain",
            InstanceState::Down => "down",
        }
    }
}

impl Upstream {
    /// The default of `abandoned`.
    pub const ABANDONED: Duration = Duration::from_secs(60);

    /// An upstream with all defaults and no instances.
    pub fn named(name: &str) -> Self {
        Upstream {
            name: name.to_owned(),
            balance: Balance::RoundRobin,
            stick: Stick::Cookie,
            on_lost: OnLost::Rebalance,
            rebalance: None,
            session_control: false,
            health: None,
            outlier: Outlier::CAUTIOUS,
            queue: Queue::DEFAULT,
            retry: Retry::default(),
            hedge: None,
            connections: Connections::DEFAULT,
            abandoned: Upstream::ABANDONED,
            slow_start: None,
            panic_below: 0,
            instances: Vec::new(),
            discovery: None,
        }
    }
}

impl Instance {
    /// An instance with all defaults.
    pub fn at(address: SocketAddr) -> Self {
        Instance {
            address,
            name: None,
            weight: 1,
            backup: false,
            state: InstanceState::Ready,
            max_requests: None,
        }
    }
}

impl Queue {
    pub const DEFAULT: Queue = Queue { length: 256, timeout: Duration::from_secs(5) };
}

impl Connections {
    pub const DEFAULT: Connections = Connections {
        idle_timeout: Duration::from_millis(1500),
        max_lifetime: None,
        max_requests: None,
        warm: 0,
    };
}
