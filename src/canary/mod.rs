//! A second version of an upstream that gets a share of a route's clients: who goes there, and when the share grows or
//! ends.
//!
//! A client is given a side once and keeps it, whatever becomes of the share, until its cookie ends; only a rollback
//! takes everybody back at once. `sequential` states the test by which the share changes without the
//! operator.

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

/// Which version a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    Stable,
    Canary,
}

impl Variant {
    pub const BOTH: [Variant; 2] = [Variant::Stable, Variant::Canary];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Variant::Stable => "stable",
            Variant::Canary => "canary",
        }
    }
}

/// Who changes the share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Only the operator.
    Manual,
    /// Both sides are compared, and the share grows or ends by what they show.
    Comparing,
    /// All new clients go to the canary; those of the stable version stay there until their cookies end.
    Promoted,
    /// Everybody goes to the stable version, matches included.
    RolledBack,
}

impl State {
    pub const ALL: [State; 4] = [State::Manual, State::Comparing, State::Promoted, State::RolledBack];

    /// The word for logs, metrics and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Manual => "manual",
            State::Comparing => "comparing",
            State::Promoted => "promoted",
            State::RolledBack => "rolled_back",
        }
    }
}

/// Why a request goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub side: Variant,
    /// The share at which the client's side was drawn; `None` when it was not drawn.
    pub drawn_at: Option<Percent>,
    /// Whether the client must be told its side by a cookie.
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
    /// Fails when the system gives no random numbers.
    pub fn new(config: &Config) -> Result<Self, RandomError> {
        Ok(Self::with_keys(keys(&config.affinity)?, config, &[]))
    }

    /// The canaries of a changed configuration. Clients keep their sides where the two upstreams of a route are the
    /// same; its share, state and comparison go on where `percent` and `auto` are as well. Fails like
    /// [`Canaries::new`].
    pub fn renewed(&self, config: &Config) -> Result<Self, RandomError> {
        let keys = match &config.affinity.secret {
            // A key that was drawn by chance is as good as ever.
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
    /// The route's host and path.
    pub route: String,
    /// Names of the two upstreams.
    pub stable: String,
    pub canary: String,
    config: config::Canary,
    split: Split,
    live: Arc<Live>,
}

/// What changes while it runs: shared by all workers, and by what follows after a change of the configuration.
#[derive(Debug)]
struct Live {
    id: usize,
    /// State and share in one, so that both change at once: index into [`State::ALL`], then 16 bits of hundredths.
    word: AtomicU32,
    judge: Mutex<Judge>,
}

#[derive(Debug)]
struct Judge {
    /// Where there is one who decides besides the operator.
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

    /// Tells it from other canaries of this process, before and after a change of the configuration.
    pub fn id(&self) -> usize {
        self.live.id
    }

    /// Index of the canary's upstream.
    pub fn upstream(&self) -> usize {
        self.config.upstream
    }

    /// Name of the cookie that keeps a client's side.
    pub fn cookie(&self) -> &str {
        self.split.cookie()
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.live.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who changes the share, and what it is.
    pub fn live(&self) -> (State, Percent) {
        unpacked(self.live.word.load(Relaxed))
    }

    /// What is known of both sides at the present share.
    pub fn evidence(&self) -> Option<Evidence> {
        self.judge().evidence
    }

    /// The side of a request with these headers, in a session of `user` if there is one. A new client's side is drawn
    /// from `session`, which names its session, else by chance.
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

    /// The `Set-Cookie` value for a choice of which the client must be told.
    pub fn set_cookie(&self, choice: Choice, https: bool) -> Option<HeaderValue> {
        let at = choice.drawn_at.filter(|_| choice.tell)?;
        self.split.set_cookie(Given { side: choice.side, at }, https)
    }

    /// Whether a request counts in the comparison: only those whose clients were drawn at the present share are
    /// spread over both sides by nothing but chance.
    pub fn compares(&self, choice: Choice) -> bool {
        let (state, share) = self.live();
        state == State::Comparing && choice.drawn_at == Some(share)
    }

    /// The operator's word: new clients go to the canary in this share, and comparing goes on from there.
    pub fn set(&self, share: Percent) {
        let compares = self.config.auto.is_some() && share > Percent::NONE && share < Percent::ALL;
        self.order(if compares { State::Comparing } else { State::Manual }, share);
    }

    /// The operator's word: all new clients go to the canary.
    pub fn promote(&self) {
        self.order(State::Promoted, Percent::ALL);
    }

    /// The operator's word: everybody goes to the stable version at once.
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

    /// Looks at all that has been counted of this canary so far, and does what follows from it.
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
        // Where the operator has decided meanwhile, that stands.
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

/// To four decimals, as more of them say nothing.
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
