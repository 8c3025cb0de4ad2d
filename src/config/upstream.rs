//! What the operator says about an upstream. Part of the model: validated, typed, defaults filled in.

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
    /// In sticky mode.
    pub stick: Stick,
    pub on_lost: OnLost,
    /// `None`: sessions are never moved to an instance that came later.
    pub rebalance: Option<Rebalance>,
    /// Whether `Vestibule-Session` in its answers is obeyed.
    pub session_control: bool,
    pub health: Option<HealthCheck>,
    pub outlier: Outlier,
    pub queue: Queue,
    pub retry: Retry,
    pub hedge: Option<Hedge>,
    pub connections: Connections,
    /// How long, at most, a request that was given up keeps its slot.
    pub abandoned: Duration,
    /// How long an instance that comes back takes to its full share; `None`: has it at once.
    pub slow_start: Option<Duration>,
    /// Percent of instances: when fewer are fit to serve, that is not believed any more. 0: always believed.
    pub panic_below: u8,
    /// Addresses are unique. Empty only with `discovery`.
    pub instances: Vec<Instance>,
    /// Where further instances are looked for.
    pub discovery: Option<Discovery>,
}

/// How an instance is chosen for a request without a tie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin, exact over all workers.
    RoundRobin,
    /// The one with the fewest requests under way for its weight; of several the one used longest ago.
    LeastRequests,
    /// The less loaded of two chosen by chance (Mitzenmacher 2001).
    TwoChoices,
    /// By chance, as often as the weight says.
    Random,
    /// The one that a property of the request leads to.
    Hash(Hash),
}

/// Consistent hashing: a change of the instances moves only those keys that it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    pub key: HashKey,
    /// Percent of the average load an instance may carry before its keys go to the next one (Mirrokni et al.
    /// 2018), more than 100; `None`: a key keeps its instance whatever the load.
    pub bound: Option<u32>,
}

/// What is hashed. A request without it is served by round robin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The session id, as the client sent it.
    Session,
    /// The resolved session's user.
    User,
    Header(HeaderName),
    Cookie(String),
    /// The client's address.
    Client,
}

/// Requests that wait until an instance has a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// May be zero: nobody waits.
    pub length: usize,
    pub timeout: Duration,
}

/// Connections to one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// How long an unused one is kept.
    pub idle_timeout: Duration,
    /// Age at which one is not used again; `None`: never for its age.
    pub max_lifetime: Option<Duration>,
    /// Requests after which one is not used again; `None`: never for their number.
    pub max_requests: Option<u32>,
    /// Kept open per worker before they are needed.
    pub warm: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub address: SocketAddr,
    /// What the application calls it; unique within the upstream.
    pub name: Option<String>,
    /// 1..=1000
    pub weight: u32,
    /// Whether it serves only while no other can.
    pub backup: bool,
    pub state: InstanceState,
    /// Requests at a time, and connections; `None`: as many as come.
    pub max_requests: Option<usize>,
}

/// What the operator wants of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// It takes requests.
    Ready,
    /// It keeps its sessions, takes no new ones, and ends what it has begun.
    Drain,
    /// It takes no more requests and ends what it has begun.
    Down,
}

impl Balance {
    /// The word used in the configuration and the API.
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
    /// The word used in the configuration, the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            InstanceState::Ready => "ready",
            InstanceState::Drain => "drain",
            InstanceState::Down => "down",
        }
    }
}

impl Upstream {
    /// `abandoned` when nothing is said.
    pub const ABANDONED: Duration = Duration::from_secs(60);

    /// An upstream with all defaults and no instance yet.
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
