//! Fault injection drills: the connections to the session store are cut, or an instance is fenced, for a
//! limited time.
//!
//! One drill runs at a time. It ends when its time is over, when its owner ends it or sends no heartbeat for
//! [`PATIENCE`], and when the process ends. Only the task that installs new configurations may call
//! [`begin`], [`expire`] and [`end`], because the state of an instance has a single writer. Reports and
//! heartbeats may come from any task.

mod report;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::session::FaultInjector;
use crate::upstream::Instance;

use super::instance_admin::{self, InstanceUpdateError};
use super::metrics::{Counts, Shard};
use super::runtime_config::RuntimeConfig;
use super::service::Shared;

pub use report::{FaultReport, Preview, TrafficStats};

/// Maximum duration of a drill.
pub const LONGEST: Duration = Duration::from_secs(300);
/// Heartbeat timeout of a drill.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Target of a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All connections to the session store are cut, and new ones fail.
    Store,
    /// An instance, given by address or name, receives no requests.
    Instance {
        /// `None`: all upstreams that contain the instance.
        upstream: Option<String>,
        name: String,
        /// Whether responses in flight are aborted.
        cut: bool,
    },
}

/// Request to start a drill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillRequest {
    pub target: Target,
    /// At most [`LONGEST`].
    pub time: Duration,
}

/// Error of a drill operation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrillError {
    #[error("another drill runs already: {0}")]
    Running(String),
    #[error("there is no such drill; the process may be another one since")]
    None,
    #[error("the sessions are in vestibule's own memory, to which no connection can be cut")]
    Embedded,
    #[error(transparent)]
    Instance(#[from] InstanceUpdateError),
}

/// Reason why a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The duration elapsed.
    Time,
    /// Ended on request.
    Asked,
    /// The heartbeat timed out.
    Silence,
    /// The process ends.
    Shutdown,
}

impl Why {
    /// The name in logs and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Time => "time",
            Why::Asked => "asked",
            Why::Silence => "silence",
            Why::Shutdown => "shutdown",
        }
    }
}

/// The running drill, or the last one.
#[derive(Debug, Default)]
pub struct Drills {
    drill: Mutex<Option<Drill>>,
    /// Start of the baseline measurement without a drill: time and counters.
    measured: Mutex<Option<(Instant, Counts)>>,
}

#[derive(Debug)]
struct Drill {
    id: u64,
    what: What,
    begun: Instant,
    until: Instant,
    /// Time of the last heartbeat.
    heard: Instant,
    /// Responses aborted at the start.
    cut: usize,
    /// Start of the baseline: time and counters.
    measured: Option<(Instant, Counts)>,
    before: Counts,
    end: Option<End>,
}

#[derive(Debug)]
struct End {
    at: Instant,
    why: Why,
    counts: Counts,
}

/// The objects that the drill makes fail.
#[derive(Debug)]
enum What {
    Store(FaultInjector),
    Instance(Vec<Arc<Instance>>),
}

impl Drills {
    fn lock(&self) -> MutexGuard<'_, Option<Drill>> {
        self.drill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measured(&self) -> MutexGuard<'_, Option<(Instant, Counts)>> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the baseline measurement. The next drill uses it.
    pub fn measure(&self, shards: &[Arc<Shard>]) {
        *self.measured() = Some((Instant::now(), total(shards)));
    }

    /// Records a heartbeat for the drill with this id.
    pub fn heartbeat(&self, id: u64) -> Result<(), DrillError> {
        let mut drill = self.lock();
        let drill = drill.as_mut().filter(|drill| drill.id == id).ok_or(DrillError::None)?;
        drill.heard = Instant::now();
        Ok(())
    }

    /// Target kind of the running drill: `store` or `instance`.
    pub fn running(&self) -> Option<&'static str> {
        self.lock().as_ref().filter(|drill| drill.end.is_none()).map(|drill| drill.what.kind())
    }

    /// When [`expire`] must be called next. `None` when no drill runs.
    pub fn next_look(&self) -> Option<Instant> {
        let drill = self.lock();
        let drill = drill.as_ref().filter(|drill| drill.end.is_none())?;
        Some(drill.until.min(drill.heard + PATIENCE))
    }

    /// The report of the drill with this id, up to the current counters in `shards`.
    pub fn account(
        &self,
        id: u64,
        shared: &Shared,
        shards: &[Arc<Shard>],
    ) -> Result<FaultReport, DrillError> {
        let drill = self.lock();
        let drill = drill.as_ref().filter(|drill| drill.id == id).ok_or(DrillError::None)?;
        Ok(report::of(drill, shared, &total(shards)))
    }
}

/// The impact that a drill of `target` would have. Fails when such a drill cannot start now.
pub fn preview(shared: &Shared, target: &Target) -> Result<Preview, DrillError> {
    refuse_second(&shared.drills.lock())?;
    let plan = shared.plan.load_full();
    Ok(Preview::of(&What::find(shared, &plan, target)?, shared, &plan))
}

fn refuse_second(drill: &Option<Drill>) -> Result<(), DrillError> {
    match drill.as_ref().filter(|drill| drill.end.is_none()) {
        Some(running) => Err(DrillError::Running(running.what.to_string())),
        None => Ok(()),
    }
}

/// Starts the drill `order` and returns its id.
pub fn begin(shared: &Shared, shards: &[Arc<Shard>], order: &DrillRequest) -> Result<u64, DrillError> {
    static IDS: AtomicU64 = AtomicU64::new(1);
    let mut drill = shared.drills.lock();
    refuse_second(&drill)?;
    let plan = shared.plan.load_full();
    let what = What::find(shared, &plan, &order.target)?;
    let (begun, before) = (Instant::now(), total(shards));
    let cut = what.fail(&plan, matches!(order.target, Target::Instance { cut: true, .. }));
    let id = IDS.fetch_add(1, Relaxed);
    tracing::warn!(drill = id, target = %what, seconds = order.time.as_secs_f64(), cut, "A DRILL BEGINS");
    let (until, measured) = (begun + order.time, shared.drills.measured().take());
    *drill = Some(Drill { id, what, begun, until, heard: begun, cut, measured, before, end: None });
    Ok(id)
}

/// Ends the running drill if its time is over at `now` or its heartbeat timed out.
pub fn expire(shared: &Shared, shards: &[Arc<Shard>], now: Instant) {
    let mut drill = shared.drills.lock();
    let Some(drill) = drill.as_mut() else { return };
    if now >= drill.until {
        drill.end(shared, shards, Why::Time);
    } else if now >= drill.heard + PATIENCE {
        drill.end(shared, shards, Why::Silence);
    }
}

/// Ends the drill with this id; `None` means the current drill. A drill that has already ended is left
/// unchanged.
pub fn end(shared: &Shared, shards: &[Arc<Shard>], id: Option<u64>, why: Why) -> Result<(), DrillError> {
    let mut drill = shared.drills.lock();
    let drill = drill.as_mut().filter(|drill| id.is_none_or(|id| drill.id == id)).ok_or(DrillError::None)?;
    drill.end(shared, shards, why);
    Ok(())
}

impl Drill {
    fn end(&mut self, shared: &Shared, shards: &[Arc<Shard>], why: Why) {
        if self.end.is_some() {
            return;
        }
        self.what.recover(&shared.plan.load());
        self.end = Some(End { at: Instant::now(), why, counts: total(shards) });
        let seconds = self.begun.elapsed().as_secs_f64();
        tracing::warn!(drill = self.id, target = %self.what, seconds, by = why.as_str(), "THE DRILL IS OVER");
    }
}

impl What {
    fn find(shared: &Shared, plan: &RuntimeConfig, target: &Target) -> Result<What, DrillError> {
        match target {
            Target::Store => {
                let backend = shared.backend.get().and_then(Option::as_ref);
                let switch = backend.and_then(|backend| backend.switch()).ok_or(DrillError::Embedded)?;
                Ok(What::Store(switch.clone()))
            }
            Target::Instance { upstream, name, .. } => {
                let members = instance_admin::find(plan, upstream.as_deref(), name)?.members;
                Ok(What::Instance(members.into_iter().map(|(_, instance)| instance.clone()).collect()))
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            What::Store(_) => "store",
            What::Instance(_) => "instance",
        }
    }

    /// Injects the fault. Returns the number of aborted responses.
    fn fail(&self, plan: &RuntimeConfig, cut: bool) -> usize {
        match self {
            What::Store(switch) => {
                switch.turn_off();
                0
            }
            What::Instance(instances) => {
                instances.iter().for_each(|instance| instance.set_fenced(true));
                refresh(plan, instances);
                if cut { instances.iter().map(|instance| instance.close_streams()).sum() } else { 0 }
            }
        }
    }

    fn recover(&self, plan: &RuntimeConfig) {
        match self {
            What::Store(switch) => switch.turn_on(),
            What::Instance(instances) => {
                instances.iter().for_each(|instance| instance.set_fenced(false));
                refresh(plan, instances);
            }
        }
    }

    /// Whether the target has recovered: the session cache is fresh again, or the instances receive requests
    /// if their state allows it.
    fn is_well(&self, shared: &Shared) -> bool {
        match self {
            What::Store(_) => shared.sessions.as_ref().is_none_or(|cache| cache.stats().fresh),
            What::Instance(instances) => instances
                .iter()
                .all(|instance| !instance.is_fenced() && (instance.is_open() || !instance.is_in_use())),
        }
    }
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            What::Store(_) => f.write_str("the session store"),
            What::Instance(instances) => {
                write!(f, "instance {}", instances.first().map_or("", |instance| &instance.label))
            }
        }
    }
}

fn refresh(plan: &RuntimeConfig, instances: &[Arc<Instance>]) {
    for balancer in plan.balancers() {
        if instances.iter().any(|instance| balancer.upstream().find(instance.id).is_some()) {
            balancer.refresh();
        }
    }
}

fn total(shards: &[Arc<Shard>]) -> Counts {
    let mut total = Counts::default();
    shards.iter().for_each(|shard| total.merge(&shard.read()));
    total
}
