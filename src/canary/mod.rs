//! Canary release: a second version of a route's upstream that gets a share of the clients.
//!
//! A client is assigned to a side once. It keeps that side until its cookie expires, even if the share
//! changes. Only a rollback moves all clients back at once. [`sequential`] defines the statistical test by
//! which the share changes without the operator.

mod controller;
mod matching;
pub mod sequential;
mod split;

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::config::{self, Config, Percent, Route};
use crate::secret::RandomError;
use crate::traffic_split::Keys;

pub use controller::{Controller, Decision, Evidence, Tallies, Tally};
use split::{Given, Split, keys};

/// The version a request is sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    Stable,
    Canary,
}

impl Variant {
    pub const BOTH: [Variant; 2] = [Variant::Stable, Variant::Canary];

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Variant::Stable => "stable",
            Variant::Canary => "canary",
        }
    }
}

/// How the share is controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Only by the operator.
    Manual,
    /// Both sides are compared. The share is increased or the canary rolled back according to the result.
    Comparing,
    /// All new clients go to the canary. Clients of the stable version stay there until their cookies expire.
    Promoted,
    /// All clients go to the stable version, including those that match the conditions.
    RolledBack,
}

impl State {
    pub const ALL: [State; 4] = [State::Manual, State::Comparing, State::Promoted, State::RolledBack];

    /// The word used in logs, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Manual => "manual",
            State::Comparing => "comparing",
            State::Promoted => "promoted",
            State::RolledBack => "rolled_back",
        }
    }
}

/// The side chosen for a request, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub side: Variant,
    /// The share at which the client's side was drawn; `None` if it was not drawn.
    pub drawn_at: Option<Percent>,
    /// Whether the response must set the cookie with the client's side.
    pub tell: bool,
}

/// The canaries of all routes.
pub struct Canaries {
    keys: Keys,
    /// In the order of the routes.
    routes: Vec<Option<Canary>>,
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Canaries {
    /// Fails if the system's random number generator fails.
    pub fn new(config: &Config) -> Result<Self, RandomError> {
        Ok(Self::with_keys(keys(&config.affinity)?, config, &[]))
    }

    /// The canaries for a changed configuration. Clients keep their sides if the two upstreams of the route
    /// are the same. Share, state and comparison continue if `percent` and `auto` are the same too. Fails
    /// like [`Canaries::new`].
    pub fn renewed(&self, config: &Config) -> Result<Self, RandomError> {
        let keys = match &config.affinity.secret {
            // A randomly drawn key is kept, so that existing cookies stay valid.
            None => self.keys.clone(),
            Some(_) => keys(&config.affinity)?,
        };
        Ok(Self::with_keys(keys, config, &self.routes))
    }

    fn with_keys(keys: Keys, config: &Config, earlier: &[Option<Canary>]) -> Self {
        let of = |route: &Route| {
            let canary = route.canary.as_ref()?;
            let name = |index: usize| config.upstreams.get(index).map(|upstream| upstream.name.as_str());
            let (label, stable, name) = (route.label(), name(route.upstream)?, name(canary.upstream)?);
            let split = Split::new(keys.clone(), &config.affinity, &label, stable, name);
            let mut made = Canary::new(canary, label, stable, name, split);
            if let Some(same) = earlier.iter().flatten().find(|other| other.is_continued_by(&made)) {
                made.live = same.live.clone();
            }
            Some(made)
        };
        Canaries { routes: config.routes.iter().map(of).collect(), keys }
    }

    /// The canary of the route with this index, if it has one.
    pub fn of_route(&self, route: usize) -> Option<&Canary> {
        self.routes.get(route)?.as_ref()
    }

    /// In the order of the routes.
    pub fn iter(&self) -> impl Iterator<Item = &Canary> {
        self.routes.iter().flatten()
    }
}

/// The canary of one route.
#[derive(Debug)]
pub struct Canary {
    /// Host and path of the route.
    pub route: String,
    /// Names of the two upstreams.
    pub stable: String,
    pub canary: String,
    config: config::Canary,
    split: Split,
    live: Arc<Live>,
}

/// Mutable state, shared by all workers and by the successors after a change of the configuration.
#[derive(Debug)]
struct Live {
    id: usize,
    /// State and share in one word, so that both change at once: the index into [`State::ALL`], then 16 bits
    /// with the share in hundredths of a percent.
    word: AtomicU32,
    judge: Mutex<Judge>,
}

#[derive(Debug)]
struct Judge {
    /// Set if the share is controlled automatically.
    controller: Option<Controller>,
    evidence: Option<Evidence>,
}

impl Canary {
    fn new(config: &config::Canary, route: String, stable: &str, canary: &str, split: Split) -> Self {
        static IDS: AtomicUsize = AtomicUsize::new(0);
        let controller = config.auto.clone().map(Controller::new);
        let state = if controller.is_some() { State::Comparing } else { State::Manual };
        let live = Live {
            id: IDS.fetch_add(1, Relaxed),
            word: AtomicU32::new(packed(state, config.percent)),
            judge: Mutex::new(Judge { controller, evidence: None }),
        };
        let (stable, canary) = (stable.to_owned(), canary.to_owned());
        Canary { route, stable, canary, config: config.clone(), split, live: Arc::new(live) }
    }

    fn is_continued_by(&self, other: &Canary) -> bool {
        let names = |canary: &Canary| [&canary.route, &canary.stable, &canary.canary].map(String::clone);
        let (own, others) = (&self.config, &other.config);
        names(self) == names(other) && own.percent == others.percent && own.auto == others.auto
    }

    /// Identifies the canary within the process. It stays the same when a changed configuration continues the
    /// canary.
    pub fn id(&self) -> usize {
        self.live.id
    }

    /// Index of the canary's upstream.
    pub fn upstream(&self) -> usize {
        self.config.upstream
    }

    /// Name of the cookie that stores a client's side.
    pub fn cookie(&self) -> &str {
        self.split.cookie()
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.live.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state and share.
    pub fn live(&self) -> (State, Percent) {
        unpacked(self.live.word.load(Relaxed))
    }

    /// The result of the last comparison at the present share; `None` if there is none.
    pub fn evidence(&self) -> Option<Evidence> {
        self.judge().evidence
    }

    /// Chooses the side of a request with these headers. `user` is the user of its session, if known. The
    /// side of a new client is derived from `session`, which identifies its session, or drawn at random
    /// without one.
    pub fn choose(&self, headers: &HeaderMap, session: Option<&[u8]>, user: Option<&str>) -> Choice {
        let (state, share) = self.live();
        if state == State::RolledBack {
            return Choice { side: Variant::Stable, drawn_at: None, tell: false };
        }
        if self.config.matches.iter().any(|conditions| matching::matches(conditions, headers, user)) {
            return Choice { side: Variant::Canary, drawn_at: None, tell: false };
        }
        let given = self.split.given(headers);
        let (Given { side, at }, tell) = given.unwrap_or_else(|| (self.split.draw(session, share), true));
        Choice { side, drawn_at: Some(at), tell }
    }

    /// The `Set-Cookie` value for a choice with [`Choice::tell`]. `None` otherwise, and if the system's
    /// random number generator fails.
    pub fn set_cookie(&self, choice: Choice, https: bool) -> Option<HeaderValue> {
        let at = choice.drawn_at.filter(|_| choice.tell)?;
        self.split.set_cookie(Given { side: choice.side, at }, https)
    }

    /// Whether a request counts in the comparison. Only clients whose side was drawn at the present share are
    /// assigned to the sides purely at random; others would bias the result.
    pub fn compares(&self, choice: Choice) -> bool {
        let (state, share) = self.live();
        state == State::Comparing && choice.drawn_at == Some(share)
    }

    /// Operator command: sets the share of new clients that go to the canary. If automatic control is
    /// configured, a new comparison starts.
    pub fn set(&self, share: Percent) {
        let compares = self.config.auto.is_some() && share > Percent::NONE && share < Percent::ALL;
        self.order(if compares { State::Comparing } else { State::Manual }, share);
    }

    /// Operator command: all new clients go to the canary.
    pub fn promote(&self) {
        self.order(State::Promoted, Percent::ALL);
    }

    /// Operator command: all clients go to the stable version at once.
    pub fn roll_back(&self) {
        self.order(State::RolledBack, Percent::NONE);
    }

    fn order(&self, state: State, share: Percent) {
        let (_, before) = unpacked(self.live.word.swap(packed(state, share), Relaxed));
        let mut judge = self.judge();
        judge.evidence = None;
        if let Some(controller) = &mut judge.controller {
            controller.restart();
        }
        drop(judge);
        let Canary { route, canary, .. } = self;
        let (state, from, to) = (state.as_str(), before.value(), share.value());
        tracing::info!(route, canary, by = "operator", state, from, to, "canary decision");
    }

    /// Evaluates the totals counted for this canary so far, and applies the decision.
    pub fn look(&self, totals: &Tallies, now: Instant) {
        let seen = self.live.word.load(Relaxed);
        let (state, share) = unpacked(seen);
        let mut judge = self.judge();
        let Some(controller) = judge.controller.as_mut().filter(|_| state == State::Comparing) else {
            return;
        };
        let (decision, evidence) = controller.look(totals, share, now);
        judge.evidence = Some(evidence);
        let (state, to) = match decision {
            Decision::Wait => return,
            Decision::Step(to) if to == Percent::ALL => (State::Promoted, to),
            Decision::Step(to) => (State::Comparing, to),
            Decision::TooManyErrors | Decision::TooSlow => (State::RolledBack, Percent::NONE),
        };
        // A concurrent operator command takes precedence.
        if self.live.word.compare_exchange(seen, packed(state, to), Relaxed, Relaxed).is_ok() {
            self.log(decision, state, share, to, &evidence);
        }
    }

    fn log(&self, decision: Decision, state: State, from: Percent, to: Percent, evidence: &Evidence) {
        let Canary { route, canary, .. } = self;
        let why = match decision {
            Decision::TooManyErrors => "it fails more often than allowed",
            Decision::TooSlow => "it is slower than allowed",
            Decision::Step(_) | Decision::Wait => "it is not worse than allowed",
        };
        let Tallies { canary: new, stable: old } = &evidence.tallies;
        tracing::warn!(
            route,
            canary,
            by = "comparison",
            state = state.as_str(),
            from = from.value(),
            to = to.value(),
            why,
            held_s = evidence.held.as_secs(),
            canary_requests = new.trials.requests,
            canary_failed = new.trials.failed,
            stable_requests = old.trials.requests,
            stable_failed = old.trials.failed,
            error_increase = rounded(evidence.errors.estimate),
            error_increase_from = rounded(evidence.errors.lower),
            error_increase_to = rounded(evidence.errors.upper),
            latency_increase = evidence.latency.map(|bounds| rounded(bounds.estimate.exp_m1())),
            latency_increase_from = evidence.latency.map(|bounds| rounded(bounds.lower.exp_m1())),
            latency_increase_to = evidence.latency.map(|bounds| rounded(bounds.upper.exp_m1())),
            "canary decision"
        );
    }
}

/// Rounds to four decimals, beyond which digits are not significant.
fn rounded(number: f64) -> f64 {
    (number * 1e4).round() / 1e4
}

fn packed(state: State, share: Percent) -> u32 {
    let index = State::ALL.iter().position(|known| *known == state).unwrap_or_default();
    (index as u32) << 16 | u32::from(share.hundredths())
}

fn unpacked(live: u32) -> (State, Percent) {
    let state = State::ALL.get((live >> 16) as usize).copied().unwrap_or(State::Manual);
    (state, Percent::from_hundredths(live as u16).unwrap_or(Percent::NONE))
}

#[cfg(test)]
mod tests;
